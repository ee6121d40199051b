"""Recalls as files in the store's directory, and the removal of what they name; all calls block."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from attrs import evolve, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..admission import recall_files
from ..oci.digest import Digest
from ..oci.media import ManifestReferences, parse_references
from ..oci.reference import Repository, Tag
from ..store import content_files, files, layout
from ..store.bucket.blocking_bucket import BlockingBucket, BucketAddress
from ..store.eviction import store_files
from ..store.eviction.store_budget import wait_for_usage_counter
from ..store.files import Version, file_version
from ..store.held_images import HeldImages
from .generation import Generation
from .recall_exchange import new_generation
from .recalls import EMPTY_BLOBS, Recall, Recalls


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


REREAD_SECONDS = 1.0
"""Seconds after a change in which another one may leave the directory's time as it is."""


class RecallReader:
    """The recalls in force, read again when any process has changed them: one ``stat`` call tells.

    If they cannot be read, the last ones that could be stay in force.
    """

    _log = Logger()

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
            self._log.error(
                "the recalls in {path} cannot be read: {error}", path=self._directory, error=error
            )
            return
        if recalls != self._recalls:
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
            entry = content_files.read_link(tag / layout.TAG_LINK)
            if entry is not None and entry.digest in (digest, *found):
                tags.append((repository, Tag(tag.name)))
    return RecallScope(is_manifest, users, tuple(sorted(tags)), tuple(sorted(own - others, key=str)))


def _read_references(root: Path, manifest: Digest) -> ManifestReferences:
    found = files.read_small_file(root / layout.data(manifest))
    references = parse_references(found.data) if found and manifest.matches(found.data) else None
    return references or ManifestReferences("")


def is_stored(root: Path, digest: Digest) -> bool:
    return content_files.is_stored(root / layout.data(digest), digest)


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

    def check(self, digest: Digest) -> None:
        """:raises NotRecallable: for a blob that holds nothing: images of every origin share it."""
        if digest in EMPTY_BLOBS:
            raise NotRecallable(f"{digest} is an empty blob, which many images share, and is never recalled")

    def is_manifest(self, digest: Digest) -> bool:
        """Return whether some repository has the digest as a manifest, without reading any."""
        images = HeldImages(self.root)
        return any(digest in images.list_manifests(each) for each in images.list_repositories())

    def recall(self, digest: Digest, reason: str) -> Recall:
        """Put a recall into force in this store; the workers notice it with the next request.

        :raises NotRecallable: see ``check``.
        """
        self.check(digest)
        previous = recall_files.read_statements(self.root).get(digest)
        now = self.now()
        is_new = previous is None or previous.is_lifted
        since = now if is_new or previous is None else previous.since
        layers = previous.layers if previous is not None else ()
        changed = now if previous is None else max(now, previous.changed + 1)
        return self._state(Recall(digest, reason, since, changed, layers=layers))

    def add_layers(self, recall: Recall, layers: tuple[Digest, ...]) -> Recall:
        """Add to a recall the layers that only its image needs."""
        if not layers or layers == recall.layers:
            return recall
        return self._state(evolve(recall, layers=layers, changed=recall.changed + 0.001))

    def lift(self, digest: Digest) -> Recall:
        """End a recall.

        :raises NotRecallable: when there is none in force.
        """
        previous = recall_files.read_statements(self.root).get(digest)
        if previous is None or previous.is_lifted:
            raise NotRecallable(f"{digest} is not recalled")
        return self._state(previous.lift(self.now()))

    def publish(self, recall: Recall) -> None:
        """Put a statement into the bucket, and delete the bytes of what it recalls from there.

        :raises BucketNotReached: when the bucket fails.
        """
        if self.bucket is None:
            return
        from obstore.exceptions import BaseError

        def unused(_: str) -> None:
            raise AssertionError("nothing is read")

        bucket = BlockingBucket(self.bucket.open, unused)  # type: ignore[arg-type]
        try:
            bucket.put(str(layout.recall(recall.digest)), bytes(recall), {})
            bucket.put(str(layout.RECALLS_GENERATION), new_generation(), {})
            if not recall.is_lifted:
                bucket.delete([str(layout.data(recall.digest))])
        except (BaseError, OSError) as error:
            raise BucketNotReached(f"{self.bucket} cannot be written: {type(error).__name__}") from error

    def _state(self, recall: Recall) -> Recall:
        recall_files.write_statement(self.root, recall)
        Generation(self.root).advance(self.now())
        return recall
