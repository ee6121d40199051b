"""Verify stored contents again to detect disk corruption; all calls block, and take long."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from attrs import evolve, frozen

from ..oci.digest import Digest
from . import layout
from .data_files import open_file
from .eviction import store_files
from .eviction.budget import wait_for_usage_counter
from .eviction.store_files import StoredFile, iter_removals, remove_content

_PIECE = 1024 * 1024


@frozen
class CorruptFile:
    """A stored content that does not match its digest.

    :ivar repositories: paths of the repositories that have it.
    """

    digest: Digest
    inode: int
    reason: str
    repositories: tuple[str, ...] = ()


def find_corrupt(
    root: Path, digests: Iterator[Digest] | list[Digest], on_read: Callable[[int], None]
) -> list[CorruptFile]:
    """Return the corrupt contents; one that is deleted meanwhile is not corrupt.

    :param on_read: called with the number of bytes read since the last call.
    """
    found = [corrupt for digest in digests if (corrupt := _check_content(root, digest, on_read)) is not None]
    repositories = _find_repositories(root, {corrupt.digest for corrupt in found}) if found else {}
    return [evolve(each, repositories=tuple(sorted(repositories.get(each.digest, ())))) for each in found]


def remove_corrupt(root: Path, corrupt: list[CorruptFile]) -> int:
    """Delete corrupt contents with their links, so that the next pull fetches them again.

    Contents that were fetched again meanwhile stay. Returns how many were deleted.
    """
    with wait_for_usage_counter(root) as counter:
        sizes = {each.digest: stored.size for each in corrupt if (stored := _stat_corrupt(root, each))}
        removals = list(iter_removals(root, sizes.__contains__))
        for digest in sizes:
            remove_content(root, digest, [removal for linked, removal in removals if linked == digest])
        counter.add(-sum(sizes.values()))
    return len(sizes)


def _check_content(root: Path, digest: Digest, on_read: Callable[[int], None]) -> CorruptFile | None:
    verifier, file = digest.verifier(), -1
    path = root / layout.data(digest)
    try:
        file = open_file(path)
        while data := os.read(file, _PIECE):
            verifier.update(data)
            on_read(len(data))
        return None if verifier.matches() else CorruptFile(digest, os.fstat(file).st_ino, "digest mismatch")
    except FileNotFoundError:
        return None
    except OSError as error:
        stored = store_files.stat_file(path)
        return CorruptFile(digest, stored.inode, f"{error.strerror}") if stored else None
    finally:
        if file >= 0:
            os.close(file)


def _stat_corrupt(root: Path, corrupt: CorruptFile) -> StoredFile | None:
    stored = store_files.stat_file(root / layout.data(corrupt.digest))
    return stored if stored is not None and stored.inode == corrupt.inode else None


def _find_repositories(root: Path, corrupt: set[Digest]) -> dict[Digest, set[str]]:
    found: dict[Digest, set[str]] = {digest: set() for digest in corrupt}
    for repository in store_files.iter_repositories(root):
        for directory in (layout.LAYERS, layout.REVISIONS):
            for digest in corrupt.intersection(store_files.iter_links(repository / directory)):
                found[digest].add(str(repository.relative_to(root / layout.REPOSITORIES)))
    return found
