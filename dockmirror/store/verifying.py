"""Contents read again, to see whether a disk has kept them; calls that block, and for long."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from attrs import frozen

from ..oci.digest import Digest
from . import layout
from .data import open_file
from .eviction import inventory
from .eviction.figures import in_turn
from .eviction.inventory import Stored
from .eviction.removal import links_to, remove_content

_PIECE = 1024 * 1024


@frozen
class Wrong:
    """A content that is not what it is named by.

    :ivar repositories: the paths of those that have it.
    """

    digest: Digest
    inode: int
    why: str
    repositories: tuple[str, ...] = ()


def find_wrong(
    root: Path, digests: Iterator[Digest] | list[Digest], read: Callable[[int], None]
) -> list[Wrong]:
    """Those of the contents that are wrong; what goes meanwhile is nothing wrong.

    :param read: called with how many bytes were read since the last time.
    """
    found = [wrong for digest in digests if (wrong := _look(root, digest, read)) is not None]
    having = _having(root, {wrong.digest for wrong in found}) if found else {}
    return [Wrong(w.digest, w.inode, w.why, tuple(sorted(having.get(w.digest, ())))) for w in found]


def repair(root: Path, wrong: list[Wrong]) -> int:
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


def _look(root: Path, digest: Digest, read: Callable[[int], None]) -> Wrong | None:
    verifier, file = digest.verifier(), -1
    path = root / layout.data(digest)
    try:
        file = open_file(path)
        while data := os.read(file, _PIECE):
            verifier.update(data)
            read(len(data))
        return None if verifier.verified() else Wrong(digest, os.fstat(file).st_ino, "other bytes")
    except FileNotFoundError:
        return None
    except OSError as error:
        stored = inventory.look(path)
        return Wrong(digest, stored.inode, f"{error.strerror}") if stored else None
    finally:
        if file >= 0:
            os.close(file)


def _stored(root: Path, wrong: Wrong) -> Stored | None:
    stored = inventory.look(root / layout.data(wrong.digest))
    return stored if stored is not None and stored.inode == wrong.inode else None


def _having(root: Path, wrong: set[Digest]) -> dict[Digest, set[str]]:
    found: dict[Digest, set[str]] = {digest: set() for digest in wrong}
    for repository in inventory.repositories(root):
        for directory in (layout.LAYERS, layout.REVISIONS):
            for digest in wrong.intersection(inventory.linked(repository / directory)):
                found[digest].add(str(repository.relative_to(root / layout.REPOSITORIES)))
    return found
