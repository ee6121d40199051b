"""Recalls as files in the store's directory, and the removal of what they name; all calls block."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..oci.digest import Digest
from ..oci.media import parse_references
from ..oci.reference import Repository, Tag
from ..store import content_files, files, layout
from ..store.eviction import store_files
from ..store.eviction.removal import delete_image, plan_manifest_deletion
from ..store.eviction.store_budget import wait_for_usage_counter
from ..store.files import Version, file_version
from .recalls import Recall, Recalls


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


_SETTLED = 1.0
"""Seconds after which a directory's modification time tells of any further change."""


class RecallReader:
    """The recalls in force, read again when any process has changed them: one ``stat`` call tells.

    If they cannot be read, the last ones that could be stay in force.
    """

    _log = Logger()

    def __init__(self, root: Path, clock: IReactorTime) -> None:
        self._directory = root / layout.RECALLS
        self._root = root
        self._clock = clock
        self._version: Version | None = None
        self._recalls = Recalls()

    def current(self) -> Recalls:
        version = file_version(self._directory)
        if version != self._version:
            self._read(version)
        return self._recalls

    def _read(self, version: Version | None) -> None:
        try:
            recalls = Recalls.of(read_statements(self._root).values())
        except OSError as error:
            self._log.error(
                "the recalls in {path} cannot be read: {error}", path=self._directory, error=error
            )
            return
        if recalls != self._recalls:
            self._recalls = recalls
        changed = version[2] / 1e9 if version else 0.0
        self._version = version if self._clock.seconds() - changed > _SETTLED else None


@frozen
class RecallScope:
    """The images in the store that a recall concerns.

    :ivar is_manifest: True if the digest is a manifest of some repository.
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
    is_manifest, others = False, set[Digest]()
    for path in sorted(store_files.iter_repositories(root)):
        repository = Repository(str(path.relative_to(root / layout.REPOSITORIES)))
        manifests = list(store_files.iter_links(path / layout.REVISIONS))
        references = {each: store_files.read_references(root, each) for each in manifests}
        found = frozenset(each for each in manifests if digest in references[each])
        if found:
            users[repository] = found
        is_manifest |= digest in references
        for each in references:
            others.update(references[each] if each != digest else ())
        for tag in store_files.iter_tags(path):
            entry = content_files.read_link(tag / layout.TAG_LINK)
            if entry is not None and (entry.digest == digest or entry.digest in found):
                tags.append((repository, Tag(tag.name)))
    own = _read_blobs(root, digest) if is_manifest else ()
    return RecallScope(is_manifest, users, tuple(tags), tuple(each for each in own if each not in others))


def _read_blobs(root: Path, manifest: Digest) -> tuple[Digest, ...]:
    found = files.read_small_file(root / layout.data(manifest))
    references = parse_references(found.data) if found else None
    return references.blobs if references else ()


def is_stored(root: Path, digest: Digest) -> bool:
    return content_files.is_stored(root / layout.data(digest), digest)


def remove_recalled(root: Path, digests: Iterable[Digest]) -> int:
    """Delete recalled contents with their links and what only they need; return the number of bytes freed."""
    wanted = set(digests)
    with wait_for_usage_counter(root) as usage:
        freed = sum(_delete_images(root, digest) for digest in wanted)
        freed += sum(_size(root, digest) for digest in wanted)
        removals = list(store_files.iter_removals(root, wanted.__contains__))
        for digest in wanted:
            own = [removal for linked, removal in removals if linked == digest]
            store_files.remove_content(root, digest, own)
        usage.add(-freed)
    return freed


def _delete_images(root: Path, digest: Digest) -> int:
    repositories = [
        Repository(str(path.relative_to(root / layout.REPOSITORIES)))
        for path in store_files.iter_repositories(root)
    ]
    plans = [plan_manifest_deletion(root, repository, digest) for repository in repositories]
    return sum(delete_image(root, plan) for plan in plans if plan is not None)


def _size(root: Path, digest: Digest) -> int:
    stored = store_files.stat_file(root / layout.data(digest))
    return stored.size if stored else 0
