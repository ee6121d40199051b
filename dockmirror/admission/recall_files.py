"""Recalls as files in the store's directory: stated, read, and carried out there; all calls block."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from secrets import randbelow, token_hex
from typing import TYPE_CHECKING

from attrs import evolve, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..oci.digest import Digest
from ..oci.manifest import ManifestReferences, parse_references
from ..oci.request import Repository, Tag
from ..store import files, layout, store_files
from ..store.eviction.store_budget import wait_for_usage_counter
from ..store.files import Version, file_version
from ..store.held_images import HeldImages
from .recalls import EMPTY_BLOBS, Recall, Recalls

if TYPE_CHECKING:
    from ..store.bucket.blocking_bucket import BucketAddress

REREAD_SECONDS = 1.0
"""Seconds after a change in which another one may leave the directory's time as it is."""
_log = Logger()


def read_statements(root: Path) -> Mapping[Digest, Recall]:
    """Return the last statement about each digest that was ever recalled."""
    found: dict[Digest, Recall] = {}
    try:
        paths = sorted((root / layout.RECALLS).iterdir())
    except FileNotFoundError:
        return found
    for path in paths:
        read = files.read_small_file(path)
        recall = Recall.parse(read.data) if read else None
        if recall is not None:
            found[recall.digest] = recall
    return found


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


def is_stored(root: Path, digest: Digest) -> bool:
    return store_files.is_stored(root / layout.data(digest), digest)


def remove_recalled(root: Path, digests: Iterable[Digest]) -> int:
    """Delete recalled contents with their links and what only they need; return the number of bytes freed."""
    recalled = set(digests)
    unneeded = {layer for digest in recalled for layer in find_scope(root, digest).layers}
    wanted = recalled | unneeded
    with wait_for_usage_counter(root) as usage:
        stored = [store_files.stat_file(root / layout.data(each)) for each in wanted]
        freed = sum(each.size for each in stored if each is not None)
        removals = list(store_files.iter_removals(root, wanted.__contains__))
        for digest in wanted:
            own = [removal for linked, removal in removals if linked == digest]
            store_files.remove_content(root, digest, own)
        usage.add(-freed)
    return freed


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


class NotRecallable(Exception):
    """The digest cannot be recalled, or was not; the message is a sentence for the operator."""


class BucketNotReached(Exception):
    """A statement is in force here and not in the bucket yet; the running mirror brings it there."""


@frozen
class RecallOrder:
    """Makes statements about recalls in a store, and in the bucket that it shares with others.

    :ivar bucket: None if there is none.
    :ivar now: returns the time in seconds since the epoch.
    """

    root: Path
    bucket: BucketAddress | None
    now: Callable[[], float]

    def begin(self, digest: Digest, reason: str) -> RecallScope:
        """Return what a recall concerns; a manifest is recalled before the search, which may take long.

        :raises NotRecallable: for a blob that holds nothing: images of every origin share it.
        """
        if digest in EMPTY_BLOBS:
            raise NotRecallable(f"{digest} is an empty blob, which many images share, and is never recalled")
        if self._is_manifest(digest):
            recall = self._recall(digest, reason)
            with suppress(BucketNotReached):
                self.publish(recall)
        return find_scope(self.root, digest)

    def complete(self, digest: Digest, reason: str, scope: RecallScope) -> Recall:
        """Put the recall into force in this store, with the layers that only its image needs."""
        recall = self._recall(digest, reason)
        if not scope.layers or scope.layers == recall.layers:
            return recall
        return self._state(evolve(recall, layers=scope.layers, changed=recall.changed + 0.001))

    def _is_manifest(self, digest: Digest) -> bool:
        """Return whether some repository has the digest as a manifest, without reading any."""
        images = HeldImages(self.root)
        return any(digest in images.list_manifests(each) for each in images.list_repositories())

    def _recall(self, digest: Digest, reason: str) -> Recall:
        """Put a recall into force in this store; the workers notice it with the next request."""
        previous = read_statements(self.root).get(digest)
        now = self.now()
        is_new = previous is None or previous.is_lifted
        since = now if is_new or previous is None else previous.since
        layers = previous.layers if previous is not None else ()
        changed = now if previous is None else max(now, previous.changed + 1)
        return self._state(Recall(digest, reason, since, changed, layers=layers))

    def lift(self, digest: Digest) -> Recall:
        """End a recall.

        :raises NotRecallable: when there is none in force.
        """
        previous = read_statements(self.root).get(digest)
        if previous is None or previous.is_lifted:
            raise NotRecallable(f"{digest} is not recalled")
        return self._state(previous.lift(self.now()))

    def publish(self, recall: Recall) -> bool:
        """Put a statement into the bucket, and delete the bytes of what it recalls from there.

        :returns: False if there is no bucket.
        :raises BucketNotReached: when the bucket fails.
        """
        if self.bucket is None:
            return False
        from obstore.exceptions import BaseError

        from ..store.bucket.blocking_bucket import open_for_small_objects

        bucket = open_for_small_objects(self.bucket)
        try:
            bucket.put(str(layout.recall(recall.digest)), bytes(recall), {})
            bucket.put(str(layout.RECALLS_GENERATION), new_generation(), {})
            if not recall.is_lifted:
                bucket.delete([str(layout.data(recall.digest))])
        except (BaseError, OSError) as error:
            raise BucketNotReached(f"{self.bucket} cannot be written: {type(error).__name__}") from error
        return True

    def _state(self, recall: Recall) -> Recall:
        write_statement(self.root, recall)
        Generation(self.root).advance(self.now())
        return recall
