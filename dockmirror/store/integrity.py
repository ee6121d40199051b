"""Contents read again, to see whether a disk has kept them; calls that block, and for long."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from attrs import frozen

from ..oci.digest import Digest
from . import layout
from .data_files import open_file
from .eviction import store_files
from .eviction.budget import in_turn
from .eviction.store_files import StoredFile, links_to, remove_content

_PIECE = 1024 * 1024


@frozen
class CorruptFile:
    """A content that is not what it is named by.

    :ivar repositories: the paths of those that have it.
    """

    digest: Digest
    inode: int
    why: str
    repositories: tuple[str, ...] = ()


def find_corrupt(
    root: Path, digests: Iterator[Digest] | list[Digest], read: Callable[[int], None]
) -> list[CorruptFile]:
    """Those of the contents that are wrong; what goes meanwhile is nothing wrong.

    :param read: called with how many bytes were read since the last time.
    """
    found = [wrong for digest in digests if (wrong := _look(root, digest, read)) is not None]
    having = _having(root, {wrong.digest for wrong in found}) if found else {}
    return [CorruptFile(w.digest, w.inode, w.why, tuple(sorted(having.get(w.digest, ())))) for w in found]


def remove_corrupt(root: Path, wrong: list[CorruptFile]) -> int:
    """Drops what is wrong and the links to it, so that the next pull fetches it anew; how many went.

    What was fetched anew meanwhile stays.
    """
    with in_turn(root) as figures:
        gone = {each.digest: stored.size for each in wrong if (stored := _stored(root, each)) is not None}
        links = list(links_to(root, gone.__contains__))
        for digest in gone:
            remove_content(root, digest, [removal for linked, removal in links if linked == digest])
        figures.add(-sum(gone.values()))
    return len(gone)


def _look(root: Path, digest: Digest, read: Callable[[int], None]) -> CorruptFile | None:
    verifier, file = digest.verifier(), -1
    path = root / layout.data(digest)
    try:
        file = open_file(path)
        while data := os.read(file, _PIECE):
            verifier.update(data)
            read(len(data))
        return None if verifier.verified() else CorruptFile(digest, os.fstat(file).st_ino, "other bytes")
    except FileNotFoundError:
        return None
    except OSError as error:
        stored = store_files.stat_file(path)
        return CorruptFile(digest, stored.inode, f"{error.strerror}") if stored else None
    finally:
        if file >= 0:
            os.close(file)


def _stored(root: Path, wrong: CorruptFile) -> StoredFile | None:
    stored = store_files.stat_file(root / layout.data(wrong.digest))
    return stored if stored is not None and stored.inode == wrong.inode else None


def _having(root: Path, wrong: set[Digest]) -> dict[Digest, set[str]]:
    found: dict[Digest, set[str]] = {digest: set() for digest in wrong}
    for repository in store_files.iter_repositories(root):
        for directory in (layout.LAYERS, layout.REVISIONS):
            for digest in wrong.intersection(store_files.iter_links(repository / directory)):
                found[digest].add(str(repository.relative_to(root / layout.REPOSITORIES)))
    return found
