"""List, read and remove the files of a store's directory; scans take long on a large one.

Contents are removed after their links. A kill in between leaves bytes without links, which a later scan
finds. A link that is written at that very moment may outlive the bytes; it has no effect then, and a
later scan removes it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from stat import S_ISREG

from attrs import frozen

from ...oci.digest import Digest
from ...oci.media import parse_references
from .. import content_files, files, layout

_SECTOR = 512
"""Bytes of the unit in which the space of a file is counted."""


@frozen
class StoredFile:
    """A file: its size, when it was last used, in seconds since the epoch, and its inode.

    The size of a file of blocks, which is sparse, is what it takes on the disk.
    """

    size: int
    used: float
    inode: int


def stat_file(path: Path | str) -> StoredFile | None:
    """Return the file's status; None if there is no regular file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    if not S_ISREG(status.st_mode):
        return None
    size = status.st_blocks * _SECTOR if str(path).endswith(layout.BLOCKS) else status.st_size
    return StoredFile(size, status.st_mtime, status.st_ino)


def iter_contents(root: Path) -> Iterator[tuple[Digest, StoredFile]]:
    """Iterate over the stored contents."""
    for algorithm in _iter_directory(root / layout.BLOBS):
        for prefix in _iter_directory(algorithm):
            for name in _list_names(prefix):
                digest = layout.parse_digest(algorithm.name, name)
                stored = stat_file(f"{prefix}/{name}/data")  # faster than a Path for each
                if digest and stored:
                    yield digest, stored


def iter_documents(root: Path) -> Iterator[tuple[Path, StoredFile]]:
    for path in _iter_directory(root / layout.DOCUMENTS):
        if stored := stat_file(path):
            yield path, stored


def iter_downloads(root: Path) -> Iterator[tuple[Path, StoredFile]]:
    """Iterate over the partial downloads, their size files, and the files of blocks."""
    for registry in _iter_directory(root / layout.GROWING):
        for path in _iter_directory(registry):
            if stored := stat_file(path):
                yield path, stored


def iter_temporary_files(root: Path) -> Iterator[Path]:
    return _iter_directory(root / layout.TEMPORARY)


def iter_repositories(root: Path) -> Iterator[Path]:
    """Iterate over the directories of repositories, which may be nested."""
    queue = [root / layout.REPOSITORIES]
    while queue:
        directory = queue.pop()
        names = _list_names(directory)
        queue += [directory / name for name in names if not name.startswith("_")]
        if any(name.startswith("_") for name in names):
            yield directory


def iter_links(directory: Path) -> Iterator[Digest]:
    """Iterate over the digests that a directory links to, as given by the links' names."""
    for algorithm in _iter_directory(directory):
        for name in _list_names(algorithm):
            if digest := layout.parse_digest(algorithm.name, name):
                yield digest


def iter_tags(repository: Path) -> Iterator[Path]:
    """Iterate over the directories of a repository's tags."""
    return _iter_directory(repository / layout.TAGS_DIRECTORY)


def iter_manifests(root: Path) -> Iterator[Digest]:
    """Iterate over the manifests of all repositories, with duplicates."""
    for repository in iter_repositories(root):
        yield from iter_links(repository / layout.REVISIONS)


def iter_repository_contents(repository: Path) -> Iterator[Digest]:
    """Iterate over the contents that a repository's directory links to."""
    for directory in (layout.REVISIONS, layout.LAYERS):
        yield from iter_links(repository / directory)


def read_references(root: Path, manifest: Digest) -> tuple[Digest, ...]:
    """Return the digests that a manifest refers to; none if it is missing or malformed."""
    found = files.read_small_file(root / layout.data(manifest))
    parts = parse_references(found.data) if found and manifest.matches(found.data) else None
    return (*parts.blobs, *parts.manifests) if parts else ()


def _iter_directory(directory: Path) -> Iterator[Path]:
    return (directory / name for name in _list_names(directory))


def _list_names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []


Removal = Callable[[], int]
"""Removes a link; returns how many files and directories that removed."""


def remove_content(root: Path, digest: Digest, removals: Iterable[Removal]) -> int:
    """Remove a content after its links; return how many files and directories that removed."""
    data = root / layout.data(digest)
    count = sum(removal() for removal in removals)
    count += files.remove(data)
    return count + files.remove_empty(data.parent, root / layout.BLOBS)


def iter_removals(root: Path, is_removed: Callable[[Digest], bool]) -> Iterator[tuple[Digest, Removal]]:
    """Iterate over the links and tags to be removed, in the order in which they must be."""
    for repository in iter_repositories(root):
        for tag in iter_tags(repository):
            yield from _iter_tag_removals(root, tag, is_removed)
        for directory in (repository / layout.REVISIONS, repository / layout.LAYERS):
            yield from _iter_link_removals(root, directory, is_removed)


def _iter_tag_removals(
    root: Path, tag: Path, is_removed: Callable[[Digest], bool]
) -> Iterator[tuple[Digest, Removal]]:
    entry = content_files.read_link(tag / layout.TAG_LINK)
    if entry is not None and is_removed(entry.digest):
        yield entry.digest, partial(_remove_tag, root, tag, entry.digest)
    yield from _iter_link_removals(root, tag / layout.TAG_HISTORY, is_removed)


def _iter_link_removals(
    root: Path, directory: Path, is_removed: Callable[[Digest], bool]
) -> Iterator[tuple[Digest, Removal]]:
    for digest in iter_links(directory):
        if is_removed(digest):
            yield digest, partial(content_files.remove_link, directory / layout.link_name(digest), root)


def _remove_tag(root: Path, tag: Path, digest: Digest) -> int:
    """Remove a tag, unless it names another manifest by now."""
    return content_files.remove_tag(tag, root) if content_files.links_to(tag / layout.TAG_LINK, digest) else 0
