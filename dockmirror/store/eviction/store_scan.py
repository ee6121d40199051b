"""Scan a store and evict the least recently used contents."""

from __future__ import annotations

from collections import ChainMap, Counter, defaultdict
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from graphlib import TopologicalSorter
from pathlib import Path

from attrs import frozen

from ...oci.digest import Digest
from ...oci.errors import DigestInvalid
from ...oci.manifest import MANIFEST_LIMIT
from ...oci.request import Repository
from .. import files, layout, pins, store_files, write_behind
from ..held_images import HeldImages
from ..store_files import Removal, StoredFile, is_stored, iter_removals, remove_content
from .store_budget import Shortfall

_IN_USE = 60.0 + files.TOUCH_INTERVAL
"""Seconds for which a used content stays: a minute, and as long again as a use may go unrecorded."""


IN_USE = "used in the last two minutes"
PINNED = "pinned"
NEEDED = "needed by policies"
DOWNLOADING = "being downloaded"
RECORDS = "records that cannot be made again"
UNREADABLE = "possibly in a repository that cannot be read"


@frozen
class EvictionResult:
    """The evicted contents, and the bytes freed."""

    contents: tuple[Digest, ...]
    bytes: int


_Key = Digest | Path
"""A content's digest, or the path of a document or of a file of blocks."""


@frozen
class _Candidate:
    """A content, document or file of blocks that may be evicted; ``parts`` is what a manifest refers to."""

    key: _Key
    stored: StoredFile
    age: Age
    parts: Sequence[Digest] = ()

    @property
    def frees(self) -> Shortfall:
        """The amount freed at least: a content is a file in a directory of its own."""
        return Shortfall(self.stored.size, 2)


class StoreScan:
    """A scan of a store; all calls block, and take long.

    Of a repository that cannot be read it is not known what it has: what no other one has is not evicted.

    :ivar unreadable: why a repository could not be read, the first one of several.
    :ivar staying: the bytes that were passed over, by the reason; all of them if a shortfall is not met.
    :param check: called often; it may raise an exception to stop the scan.
    :param needed: manifests that policies need: like those of pins, they and their contents are not evicted.
    """

    def __init__(
        self, root: Path, now: float, check: Callable[[], None], needed: Collection[Digest] = ()
    ) -> None:
        self._root = root
        self._now = now
        self._check = check
        self._needed = needed
        self._contents: dict[Digest, StoredFile] = {}
        self._documents: dict[Path, StoredFile] = {}
        self._blocks: dict[Path, StoredFile] = {}
        self.staying: Counter[str] = Counter()
        self.unreadable: OSError | None = None

    def measure(self) -> int:
        """Count the stored bytes; must be called first."""
        for digest, stored in store_files.iter_contents(self._root):
            self._check()
            self._contents[digest] = stored
        self._documents = dict(store_files.iter_documents(self._root))
        downloads = dict(store_files.iter_downloads(self._root))
        self._blocks = {path: file for path, file in downloads.items() if path.suffix == layout.BLOCKS}
        self.staying[DOWNLOADING] = sum(
            file.size for path, file in downloads.items() if path not in self._blocks
        )
        groups = self._contents, self._documents, downloads
        return sum(file.size for group in groups for file in group.values())

    def evict(self, shortfall: Shortfall) -> EvictionResult:
        """Evict the least recently used contents until the shortfall is met, and remove dangling links."""
        candidates = list(self._select(shortfall)) if shortfall else []
        removals = self._find_removals({each.key for each in candidates})
        evicted = self._remove_all(candidates, removals, shortfall)
        for digest in removals.keys() - self._contents.keys():
            if not is_stored(self._root / layout.data(digest), digest):
                remove_content(self._root, digest, removals[digest])
        return evicted

    def dry_run(self, shortfall: Shortfall) -> EvictionResult:
        """Return what ``evict`` would evict."""
        return _result(list(self._select(shortfall)) if shortfall else [])

    def delete_unreferenced(self) -> EvictionResult:
        """Delete the contents that no repository has."""
        unreferenced = [
            each
            for each in self._find_unreferenced()
            if store_files.stat_file(self._path(each.key)) == each.stored
        ]
        for each in unreferenced:
            self._remove(each.key, {})
        deleted = {each.key for each in unreferenced}
        self._contents = {
            digest: stored for digest, stored in self._contents.items() if digest not in deleted
        }
        return _result(unreferenced)

    def find_unreferenced(self) -> EvictionResult:
        """Return what ``delete_unreferenced`` would delete."""
        return _result(self._find_unreferenced())

    def _find_unreferenced(self) -> list[_Candidate]:
        """Find contents without links; those used in the last minute may be about to be linked and stay."""
        unlinked = self._find_unlinked(iter_removals(self._root, self._contents.__contains__))
        return [
            _Candidate(digest, self._contents[digest], (self._contents[digest].used, 0))
            for digest in unlinked
            if abs(self._now - self._contents[digest].used) >= _IN_USE
        ]

    def _find_unlinked(self, links: Iterable[tuple[Digest, Removal]]) -> Collection[Digest]:
        linked = {digest for digest, _ in links}
        return [digest for digest in self._contents if digest not in linked]

    def _select(self, shortfall: Shortfall) -> Iterator[_Candidate]:
        """Iterate over what is to be evicted, in order; pinned and held images, and what is in use, stay.

        Blocks come first: they are not verified, and only some of a blob.  Contents that are not in the
        bucket yet come last: the only copy may be here.
        """
        pending = set(write_behind.iter_pending_contents(self._root))

        def rank(candidate: _Candidate) -> tuple[bool, bool, Age]:
            return candidate.key in pending, candidate.key not in self._blocks, candidate.age

        candidates = (*self._content_candidates(), *self._file_candidates())
        for each in sorted(candidates, key=rank):
            if not shortfall:
                return
            # Content that is stored while the scan runs is a little newer than the scan itself.  Times far
            # ahead, which a clock that was set back leaves, protect nothing.
            if abs(self._now - each.age[0]) >= _IN_USE:
                shortfall -= each.frees
                yield each
            else:
                self.staying[IN_USE] += each.stored.size

    def _content_candidates(self) -> Iterator[_Candidate]:
        references = self._read_references()
        used = {digest: stored.used for digest, stored in self._contents.items()}
        needed = store_files.find_descendants(self._needed, references.get)
        pinned = self._find_pinned(references)
        uncertain = self._find_uncertain()
        for digest, age in lru_order(used, references).items():
            stored = self._contents[digest]
            if digest in pinned or digest in needed:
                self.staying[PINNED if digest in pinned else NEEDED] += stored.size
            elif digest in uncertain:
                self.staying[UNREADABLE] += stored.size
            else:
                yield _Candidate(digest, stored, age, references.get(digest, ()))

    def _find_uncertain(self) -> Collection[Digest]:
        """Return what only a repository that cannot be read may have, and what that refers to."""
        if self.unreadable is None:
            return ()
        unlinked = self._find_unlinked(
            iter_removals(self._root, self._contents.__contains__, self._note_unreadable)
        )
        return store_files.find_descendants(unlinked, self._read_possible_references)

    def _read_possible_references(self, digest: Digest) -> Sequence[Digest]:
        stored = self._contents.get(digest)
        if stored is None or stored.size > MANIFEST_LIMIT:
            return ()
        self._check()
        return store_files.read_references(self._root, digest)

    def _note_unreadable(self, error: OSError) -> None:
        self.unreadable = self.unreadable or error

    def _find_pinned(self, references: dict[Digest, Sequence[Digest]]) -> set[Digest]:
        """Return the pinned images with their contents and artifacts.

        An artifact is kept in the repository of the pin only: those who push elsewhere may claim any subject.
        """
        kept: set[Digest] = set()
        pinned: defaultdict[Repository, list[Digest]] = defaultdict(list)
        for repository, digest in pins.iter_pinned_manifests(self._root):
            pinned[repository].append(digest)
        for repository, manifests in pinned.items():
            self._check()
            by_subject: dict[Digest, Sequence[Digest]] = {}
            with store_files.reporting(self._note_unreadable):
                for subject, artifacts in HeldImages(self._root).list_artifacts(repository).items():
                    found = (digest for _, digest in artifacts)
                    by_subject[subject] = (*references.get(subject, ()), *found)
            kept.update(store_files.find_descendants(manifests, ChainMap(by_subject, references).get))
        return kept

    def _file_candidates(self) -> Iterator[_Candidate]:
        for path, stored in self._blocks.items():
            yield _Candidate(path, stored, (stored.used, 0))
        top = self._root / layout.REPOSITORIES
        names = [
            str(path.relative_to(top))
            for path in store_files.iter_repositories(self._root, self._note_unreadable)
        ]
        held = {each for name in names for each in (name, Repository(name).rest)}
        for path, stored in self._documents.items():
            unused = 0.0 if self.unreadable else abs(self._now - stored.used)
            if may_evict_document(path.name, unused, self._contents, held):
                yield _Candidate(path, stored, (stored.used, 0))
            else:
                self.staying[RECORDS] += stored.size

    def _read_references(self) -> dict[Digest, Sequence[Digest]]:
        """Return what each manifest refers to."""
        found: dict[Digest, Sequence[Digest]] = {}
        for digest in store_files.iter_manifests(self._root, self._note_unreadable):
            self._check()
            if digest in self._contents and digest not in found:
                found[digest] = store_files.read_references(self._root, digest)
        return found

    def _find_removals(self, evicted: set[_Key]) -> Mapping[Digest, Sequence[Removal]]:
        """Return the links to what is to be evicted, and the dangling ones."""

        def is_removed(digest: Digest) -> bool:
            self._check()
            return digest in evicted or digest not in self._contents

        removals: defaultdict[Digest, list[Removal]] = defaultdict(list)
        for digest, removal in iter_removals(self._root, is_removed, self._note_unreadable):
            removals[digest].append(removal)
        return removals

    def _remove_all(
        self,
        candidates: Sequence[_Candidate],
        removals: Mapping[Digest, Sequence[Removal]],
        shortfall: Shortfall,
    ) -> EvictionResult:
        evicted: list[_Candidate] = []
        used: set[_Key] = set()
        for each in candidates:
            self._check()
            if not shortfall:
                break
            if each.key in used or store_files.stat_file(self._path(each.key)) != each.stored:
                used.update(each.parts)  # it was used meanwhile, and its parts with it
                self.staying[IN_USE] += each.stored.size
                continue
            shortfall -= Shortfall(each.stored.size, self._remove(each.key, removals))
            evicted.append(each)
        return _result(evicted)

    def _remove(self, key: _Key, removals: Mapping[Digest, Sequence[Removal]]) -> int:
        """Remove a content or a document; return how many files and directories that removed."""
        if isinstance(key, Path):
            return int(files.remove(key))
        return remove_content(self._root, key, removals.get(key, ()))

    def _path(self, key: _Key) -> Path:
        return key if isinstance(key, Path) else self._root / layout.data(key)


def _result(evicted: Sequence[_Candidate]) -> EvictionResult:
    contents = tuple(each.key for each in evicted if isinstance(each.key, Digest))
    return EvictionResult(contents, sum(each.stored.size for each in evicted))


_OF_REGISTRIES = {"written", "writing", "doubts"}
"""Kinds of documents of which each registry has a few."""
_OF_WHAT_IS_HELD = {"public", "imported", "changed", "gone", "back"}
"""Kinds of documents about a content or a repository, which nobody may be able to make again."""
_OUTLIVING = 30 * 86_400.0
"""Seconds since its last use for which such a document outlives its content or repository."""


def may_evict_document(
    file_name: str, unused: float, contents: Container[Digest], repositories: Collection[str]
) -> bool:
    """Decide whether a document may be evicted, in the order of last uses.

    One that is made again when it is missing may be.  One about a content or a repository may not while that
    is held, since clients would be refused what is held, or given what was deleted; it outlives that by a
    while.  The few of each registry always stay.

    :param unused: the seconds since its last use.
    :param repositories: the names of those that hold something, with their registry and without it.
    """
    name, is_whole = layout.parse_document(file_name)
    kind, _, about = name.partition("/")
    if kind not in _OF_WHAT_IS_HELD:
        return kind not in _OF_REGISTRIES
    if unused < _OUTLIVING:
        return False
    repository, at, digest = about.partition("/")[2].partition("@")
    with suppress(DigestInvalid):
        return Digest.parse(digest) not in contents
    if is_whole or at:
        return repository not in repositories
    return not any(each.startswith(repository) for each in repositories)


Age = tuple[float, int]
"""When something was last used, and how deep it is below the manifest that was used then."""


def lru_order(
    used: Mapping[Digest, float], references: Mapping[Digest, Sequence[Digest]]
) -> dict[Digest, Age]:
    """Return each content's age: its own last use or that of a manifest that refers to it, and its depth.

    Sorted by age, the least recently used comes first, and each manifest before what it refers to.

    :param references: what each manifest refers to; digests rule out cycles.
    """
    ages = {digest: (when, 0) for digest, when in used.items()}
    for manifest in _sort_top_down(references):
        when, depth = ages.get(manifest, (0.0, 0))
        for part in references[manifest]:
            if part in ages:
                ages[part] = max(ages[part], (when, depth + 1))
    return ages


def _sort_top_down(references: Mapping[Digest, Sequence[Digest]]) -> Iterator[Digest]:
    """Iterate over the manifests, each after all that refer to it."""
    sorter: TopologicalSorter[Digest] = TopologicalSorter(dict.fromkeys(references, ()))
    for manifest, parts in references.items():
        for part in parts:
            if part in references:
                sorter.add(part, manifest)
    return iter(sorter.static_order())
