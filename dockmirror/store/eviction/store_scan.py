"""One walk through a store, and what goes on it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from graphlib import TopologicalSorter
from pathlib import Path

from attrs import frozen

from ...oci.digest import Digest
from .. import files, layout, pins, write_behind
from ..data_files import is_stored
from . import store_files
from .budget import Shortfall
from .store_files import Removal, StoredFile, links_to, remove_content

_IN_USE = 60.0 + files.NOTED
"""Seconds for which what was used stays: a minute, and as long again as a use may go without being noted."""


@frozen
class EvictionResult:
    """What went."""

    contents: tuple[Digest, ...]
    bytes: int


_Key = Digest | Path
"""A content by its digest, or a document by its path."""


@frozen
class _Candidate:
    """What may go; a manifest has parts."""

    key: _Key
    stored: StoredFile
    age: Age
    parts: Sequence[Digest] = ()

    @property
    def frees(self) -> Shortfall:
        """At the least: a content is a file in a directory of its own."""
        return Shortfall(self.stored.size, 2)


class StoreScan:
    """What a store holds, found out by looking at all of it; these calls block, and for long.

    :param check: called again and again; by raising something it ends the walk.
    """

    def __init__(self, root: Path, now: float, check: Callable[[], None]) -> None:
        self._root = root
        self._now = now
        self._check = check
        self._contents: dict[Digest, StoredFile] = {}
        self._documents: dict[Path, StoredFile] = {}

    def count(self) -> int:
        """How many bytes are held; to be called first."""
        for digest, stored in store_files.iter_contents(self._root):
            self._check()
            self._contents[digest] = stored
        self._documents = dict(store_files.iter_documents(self._root))
        growing = dict(store_files.iter_downloads(self._root))
        return sum(s.size for held in (self._contents, self._documents, growing) for s in held.values())

    def evict(self, need: Shortfall) -> EvictionResult:
        """Evicts what was used least recently until there is no need; links to nothing go, too."""
        chosen = list(self._chosen(need)) if need else []
        links = self._links({each.key for each in chosen})
        evicted = self._remove(chosen, links, need)
        for digest in links.keys() - self._contents.keys():
            if not is_stored(self._root / layout.data(digest), digest):
                remove_content(self._root, digest, links[digest])
        return evicted

    def dry_run(self, need: Shortfall) -> EvictionResult:
        """What would go."""
        return _evicted(list(self._chosen(need)) if need else [])

    def delete_unreferenced(self) -> EvictionResult:
        """Deletes the contents that no repository has."""
        adrift = [
            each for each in self._adrift() if store_files.stat_file(self._path(each.key)) == each.stored
        ]
        for each in adrift:
            self._remove_one(each.key, {})
        gone = {each.key for each in adrift}
        self._contents = {digest: stored for digest, stored in self._contents.items() if digest not in gone}
        return _evicted(adrift)

    def find_unreferenced(self) -> EvictionResult:
        """Those that would be deleted."""
        return _evicted(self._adrift())

    def _adrift(self) -> list[_Candidate]:
        """What no repository has, and was not used in the last minute: it may be about to be linked."""
        linked = {digest for digest, _ in links_to(self._root, lambda digest: digest in self._contents)}
        return [
            _Candidate(digest, stored, (stored.used, 0))
            for digest, stored in self._contents.items()
            if digest not in linked and not 0 <= self._now - stored.used < _IN_USE
        ]

    def _chosen(self, need: Shortfall) -> Iterator[_Candidate]:
        """What is to go, the first first; nothing that was used in the last minute, or that a pin needs.

        What a bucket is still to be given goes last: it may be nowhere else.
        """
        waiting = set(write_behind.pending_contents(self._root))
        candidates = (*self._of_contents(), *self._of_documents())
        for each in sorted(candidates, key=lambda each: (each.key in waiting, each.age)):
            if not need:
                return
            if not 0 <= self._now - each.age[0] < _IN_USE:
                need -= each.frees
                yield each

    def _of_contents(self) -> Iterator[_Candidate]:
        references = self._references()
        used = {digest: stored.used for digest, stored in self._contents.items()}
        pinned = with_descendants(pins.manifests(self._root), references)
        for digest, age in lru_order(used, references).items():
            if digest not in pinned:
                yield _Candidate(digest, self._contents[digest], age, references.get(digest, ()))

    def _of_documents(self) -> Iterator[_Candidate]:
        for path, stored in self._documents.items():
            yield _Candidate(path, stored, (stored.used, 0))

    def _references(self) -> Mapping[Digest, Sequence[Digest]]:
        """What each manifest refers to."""
        found: dict[Digest, Sequence[Digest]] = {}
        for digest in store_files.iter_manifests(self._root):
            self._check()
            if digest in self._contents and digest not in found:
                found[digest] = store_files.read_references(self._root, digest)
        return found

    def _links(self, chosen: set[_Key]) -> Mapping[Digest, Sequence[Removal]]:
        """The links to what is to go, and to what is not there."""

        def gone(digest: Digest) -> bool:
            self._check()
            return digest in chosen or digest not in self._contents

        found: defaultdict[Digest, list[Removal]] = defaultdict(list)
        for digest, removal in links_to(self._root, gone):
            found[digest].append(removal)
        return found

    def _remove(
        self, chosen: Sequence[_Candidate], links: Mapping[Digest, Sequence[Removal]], need: Shortfall
    ) -> EvictionResult:
        gone: list[_Candidate] = []
        wanted: set[_Key] = set()
        for each in chosen:
            self._check()
            if not need:
                break
            if each.key in wanted or store_files.stat_file(self._path(each.key)) != each.stored:
                wanted.update(each.parts)  # it was used meanwhile, and so were they
                continue
            need -= Shortfall(each.stored.size, self._remove_one(each.key, links))
            gone.append(each)
        return _evicted(gone)

    def _remove_one(self, key: _Key, links: Mapping[Digest, Sequence[Removal]]) -> int:
        """How many files and directories went."""
        if isinstance(key, Path):
            return int(files.remove(key))
        return remove_content(self._root, key, links.get(key, ()))

    def _path(self, key: _Key) -> Path:
        return key if isinstance(key, Path) else self._root / layout.data(key)


def _evicted(gone: Sequence[_Candidate]) -> EvictionResult:
    contents = tuple(each.key for each in gone if isinstance(each.key, Digest))
    return EvictionResult(contents, sum(each.stored.size for each in gone))


Age = tuple[float, int]
"""When something was used last, and how deep below what was used then."""


def lru_order(
    used: Mapping[Digest, float], references: Mapping[Digest, Sequence[Digest]]
) -> dict[Digest, Age]:
    """When each content was used last, by itself or by way of a manifest that refers to it, and how deep.

    Sorted by these what was used least recently comes first, and each manifest before what it refers to.

    :param references: of manifests, each of which is the content of its digest: so there is no circle.
    """
    found = {digest: (when, 0) for digest, when in used.items()}
    for manifest in _from_the_top(references):
        when, depth = found.get(manifest, (0.0, 0))
        for part in references[manifest]:
            if part in found:
                found[part] = max(found[part], (when, depth + 1))
    return found


def with_descendants(
    manifests: Iterable[Digest], references: Mapping[Digest, Sequence[Digest]]
) -> set[Digest]:
    """These, and all that they refer to, and so on."""
    found: set[Digest] = set()
    unseen = list(manifests)
    while unseen:
        digest = unseen.pop()
        if digest not in found:
            found.add(digest)
            unseen += references.get(digest, ())
    return found


def _from_the_top(references: Mapping[Digest, Sequence[Digest]]) -> Iterator[Digest]:
    """Manifests, each after all that refer to it."""
    sorter: TopologicalSorter[Digest] = TopologicalSorter(dict.fromkeys(references, ()))
    for manifest, parts in references.items():
        for part in parts:
            if part in references:
                sorter.add(part, manifest)
    return iter(sorter.static_order())
