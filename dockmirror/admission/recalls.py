"""Recalls: digests that must not be served any more, the rules that follow, and the files that state them.

1. A recalled digest is refused at every address: as a manifest by digest or tag, and as a blob.
2. A manifest that refers to a recalled digest is refused: an index that lists it, an image that needs it.
3. A tag that names a refused manifest falls back to the last digest that it named before and that is not
   refused.
4. The blobs that only a recalled image needed are refused for ten minutes, so that a pull that was cut off
   fails and is not resumed.
5. Of two statements about one digest the later counts; of two at the same time, the recall.
6. A statement that cannot be read recalls the digest in its name until there is another one.  Nothing is
   deleted for it, and no other mirror is told: it may have been that the recall was lifted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from secrets import randbelow, token_hex

from attrs import evolve, field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..oci.digest import Digest
from ..oci.errors import Denied, DigestInvalid
from ..oci.manifest import ManifestReferences, parse_references
from ..oci.request import Repository, Tag
from ..store import files, layout, store_files
from ..store.files import Version, file_version
from ..system.times import format_timestamp

LAYER_SECONDS = 600.0
"""Seconds for which the blobs that only a recalled image needed are refused."""
MAX_FALLBACKS = 5
"""Earlier digests of a tag that are tried."""
EMPTY_BLOBS = frozenset(
    Digest("sha256", each)
    for each in (
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",  # no bytes
        "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",  # {}, the empty configuration
        "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef",  # an empty tar archive
        "a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4",  # the same, gzipped by docker
        "4f4fb700ef54461cfa02571ae0db9a0dc1e0cdb5577484a6d75e68dc38e8acc1",  # the same, gzipped by BuildKit
    )
)
"""Blobs that images of every origin share, and that hold nothing."""
REREAD_SECONDS = 1.0
"""Seconds after a change in which another one may leave the directory's time as it is."""
_log = Logger()


class Recalled(Denied):
    """The digest, or a manifest that refers to it, was recalled by the operator."""


@frozen
class Recall:
    """A statement that a digest is recalled, or that its recall was lifted.

    :ivar reason: the operator's words.
    :ivar since: when it was recalled, in seconds since the epoch.
    :ivar changed: when this statement was made.
    :ivar layers: the blobs that only this manifest needed.
    """

    digest: Digest
    reason: str
    since: float
    changed: float
    is_lifted: bool = False
    layers: tuple[Digest, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> Recall | None:
        """Parse a recall's document; None if it is malformed."""
        try:
            fields = json.loads(data)
            return cls(
                Digest.parse(fields["digest"]),
                str(fields["reason"]),
                float(fields["since"]),
                float(fields["changed"]),
                bool(fields["lifted"]),
                tuple(map(Digest.parse, fields["layers"])),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, DigestInvalid):
            return None

    def __bytes__(self) -> bytes:
        fields = {
            "digest": str(self.digest),
            "reason": self.reason,
            "since": self.since,
            "changed": self.changed,
            "lifted": self.is_lifted,
            "layers": [str(each) for each in self.layers],
        }
        return json.dumps(fields, indent=1).encode()

    def fields(self) -> dict[str, str]:
        """Return what clients of the command line and of the API are told, as JSON."""
        return {"digest": str(self.digest), "reason": self.reason, "since": format_timestamp(self.since)}

    @property
    def is_unreadable(self) -> bool:
        """True for a recall by rule 6, which nobody has made at any time."""
        return self.changed == 0.0

    def supersedes(self, other: Recall | None) -> bool:
        """Return whether this statement counts, and not the other one about the same digest."""
        if other is None or self.changed != other.changed:
            return other is None or self.changed > other.changed
        return other.is_lifted and not self.is_lifted

    def lift(self, now: float) -> Recall:
        """Return the statement that ends this recall."""
        return evolve(self, is_lifted=True, changed=max(now, self.changed + 1))


@frozen
class Recalls:
    """The recalls in force."""

    by_digest: Mapping[Digest, Recall] = field(factory=dict)

    @classmethod
    def of(cls, statements: Iterable[Recall]) -> Recalls:
        """Return those of the statements that are in force."""
        return cls({each.digest: each for each in statements if not each.is_lifted})

    def __bool__(self) -> bool:
        return bool(self.by_digest)

    def find(self, digest: Digest, references: ManifestReferences | None = None) -> Recall | None:
        """Return the recall of a content, or of something that this manifest refers to; see rules 1 and 2."""
        if not self.by_digest:
            return None
        referenced = (*references.manifests, *references.blobs) if references else ()
        return next((self.by_digest[each] for each in (digest, *referenced) if each in self.by_digest), None)

    def find_blob(self, digest: Digest, now: float) -> Recall | None:
        """Return the recall because of which a blob is refused; see rules 1 and 4."""
        if digest in self.by_digest:
            return self.by_digest[digest]
        recent = (each for each in self.by_digest.values() if now - each.since < LAYER_SECONDS)
        return next((each for each in recent if digest in each.layers), None)


def explain(recall: Recall, digest: Digest | None) -> str:
    """Return the sentence for a client that is refused this digest."""
    if digest is None or digest == recall.digest:
        what = f"{recall.digest} was"
    elif digest in recall.layers:
        what = f"{digest} belongs to {recall.digest}, which was"
    else:
        what = f"{digest} refers to {recall.digest}, which was"
    return (
        f"{what} recalled by the operator of this mirror: {recall.reason}."
        " Use another version, or ask the operator"
    )


def fallbacks(named: Sequence[Digest], find: Callable[[Digest], Recall | None]) -> list[Digest]:
    """Return the digests that a tag may fall back to, the best first; see rule 3.

    :param named: the digests that the tag has named, oldest first.
    """
    return [each for each in dict.fromkeys(reversed(named)) if find(each) is None][:MAX_FALLBACKS]


def _parse_statement(name: str, data: bytes) -> Recall | None:
    """Return the statement in a file; None if it has no statement's name.  See rule 6 for malformed data."""
    try:
        digest = Digest.parse(name.replace("-", ":", 1))
    except DigestInvalid:
        return None
    recall = Recall.parse(data)
    if recall is not None and recall.digest == digest:
        return recall
    return Recall(digest, "its statement cannot be read", since=0.0, changed=0.0)


def read_statements(root: Path) -> Mapping[Digest, Recall]:
    """Return the last statement about each digest that was ever recalled.

    :raises OSError: when the directory cannot be read.
    """
    try:
        names = sorted(os.listdir(root / layout.RECALLS))
    except FileNotFoundError:
        return {}
    read = ((name, files.read_small_file(root / layout.RECALLS / name)) for name in names)
    statements = (_parse_statement(name, found.data if found else b"") for name, found in read)
    return {each.digest: each for each in statements if each is not None}


def write_statement(root: Path, recall: Recall) -> None:
    """Store a statement in place of the previous one about its digest.

    :raises OSError: if that fails; nothing has changed then.
    """
    path = root / layout.recall(recall.digest)
    files.replace_file(path, bytes(recall), root / layout.TEMPORARY, recall.changed)


def read_recalls(root: Path) -> Recalls:
    return Recalls.of(read_statements(root).values())


class RecallReader:
    """The recalls in force, read again when any process has changed them: one ``stat`` call tells.

    If they cannot be read, the last ones that could be stay in force.
    """

    def __init__(self, root: Path, clock: IReactorTime) -> None:
        self._root = root
        self._directory = root / layout.RECALLS
        self._clock = clock
        self._version: Version | None = None
        self._reread: float | None = None
        self._recalls = Recalls()

    def current(self) -> Recalls:
        version, now = file_version(self._directory), self._clock.seconds()
        if version != self._version:
            self._version, self._reread = version, now + REREAD_SECONDS
            self._read()
        elif self._reread is not None and not now < self._reread < now + 2 * REREAD_SECONDS:
            self._reread = None
            self._read()
        return self._recalls

    def _read(self) -> None:
        try:
            recalls = read_recalls(self._root)
        except OSError as error:
            _log.error(
                "the recalls in {path} cannot be read: {error}", path=str(self._directory), error=str(error)
            )
            return
        unreadable = [each for each, recall in recalls.by_digest.items() if recall.is_unreadable]
        if unreadable and recalls != self._recalls:
            _log.error(
                "the statements in {path} about {digests} cannot be read, and count as recalls; recall them"
                " again, or lift the recalls",
                path=str(self._directory), digests=", ".join(map(str, unreadable)),
            )  # fmt: skip
        if recalls != self._recalls:  # an equal one stays the same object, by which users see a change
            self._recalls = recalls


@frozen
class RecallScope:
    """The images in the store that a recall concerns.

    :ivar is_manifest: True if some repository has the digest as a manifest, or an index lists it.
    :ivar users: the manifests that refer to the digest, by repository.
    :ivar tags: the tags that name the digest or a manifest that refers to it.
    :ivar layers: the blobs that only this manifest needs.
    """

    is_manifest: bool
    users: Mapping[Repository, frozenset[Digest]]
    tags: tuple[tuple[Repository, Tag], ...]
    layers: tuple[Digest, ...]

    @property
    def sharing(self) -> int:
        """The number of different manifests that refer to the digest."""
        return len(frozenset[Digest]().union(*self.users.values()))


def find_scope(root: Path, digest: Digest) -> RecallScope:
    """Look through all repositories for what a recall of the digest concerns."""
    users: dict[Repository, frozenset[Digest]] = {}
    tags: list[tuple[Repository, Tag]] = []
    is_manifest, own, others = False, set[Digest](), set[Digest]()
    for path in sorted(store_files.iter_repositories(root)):
        repository = Repository(str(path.relative_to(root / layout.REPOSITORIES)))
        found = set()
        for each in store_files.iter_links(path / layout.REVISIONS):
            references = _read_references(root, each)
            (own if each == digest else others).update(references.blobs)
            is_manifest |= digest in (each, *references.manifests)
            if digest in (*references.manifests, *references.blobs):
                found.add(each)
        if found:
            users[repository] = frozenset(found)
        for tag in store_files.iter_tags(path):
            entry = store_files.read_link(tag / layout.TAG_LINK)
            if entry is not None and entry.digest in (digest, *found):
                tags.append((repository, Tag(tag.name)))
    return RecallScope(is_manifest, users, tuple(sorted(tags)), tuple(sorted(own - others, key=str)))


def _read_references(root: Path, manifest: Digest) -> ManifestReferences:
    found = files.read_small_file(root / layout.data(manifest))
    references = parse_references(found.data) if found and manifest.matches(found.data) else None
    return references or ManifestReferences("")


class Generation:
    """The generation of a cache directory's rules, which its processes share as a small file.

    :param root: the cache directory.
    """

    def __init__(self, root: Path) -> None:
        self._path = root / layout.ADMISSION_GENERATION
        self._temporary = root / layout.TEMPORARY
        self._version: files.Version | None = None
        self._number = 0

    @property
    def number(self) -> int:
        """The current number; one ``stat`` call unless it has changed."""
        version = files.file_version(self._path)
        if version != self._version:
            found = files.read_small_file(self._path)
            self._number = int(found.data) if found and found.data.isdigit() else 0
            self._version = version
        return self._number

    def advance(self, now: float) -> int:
        """Begin a new generation, and return its number; blocks.

        A random part keeps two that begin at the same time apart.

        :raises OSError: when it cannot be written: then decisions from before stay in force.
        """
        number = max(int(now * 1e6), self.number // 1000) * 1000 + 1000 + randbelow(1000)
        files.replace_file(self._path, str(number).encode(), self._temporary, now)
        return number


def new_generation() -> bytes:
    """Return a value for the generation that it never had before."""
    return token_hex(8).encode()
