"""What lies in a store's directory: walks, which take a while on a large one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from stat import S_ISREG

from attrs import frozen

from ...oci.digest import Digest
from ...oci.errors import DigestInvalid
from ...oci.media import parse_references
from .. import atomic_file, files, layout, links


@frozen
class StoredFile:
    """A file: how large it is, when it was used last, in seconds since the epoch, and which it is."""

    size: int
    used: float
    inode: int


def stat_file(path: Path | str) -> StoredFile | None:
    """None where there is no file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return StoredFile(status.st_size, status.st_mtime, status.st_ino) if S_ISREG(status.st_mode) else None


def iter_contents(root: Path) -> Iterator[tuple[Digest, StoredFile]]:
    """The contents that are held."""
    for algorithm in _within(root / layout.BLOBS):
        for beginning in _within(algorithm):
            for name in _names(beginning):
                digest = _digest(algorithm.name, name)
                stored = stat_file(f"{beginning}/{name}/data")  # a path for each would take most of the time
                if digest and stored:
                    yield digest, stored


def iter_documents(root: Path) -> Iterator[tuple[Path, StoredFile]]:
    """The documents."""
    for path in _within(root / layout.DOCUMENTS):
        if stored := stat_file(path):
            yield path, stored


def iter_downloads(root: Path) -> Iterator[tuple[Path, StoredFile]]:
    """The blobs on their way in, and what tells their sizes."""
    for registry in _within(root / layout.GROWING):
        for path in _within(registry):
            if stored := stat_file(path):
                yield path, stored


def iter_temporary_files(root: Path) -> Iterator[Path]:
    """What is on its way to a name."""
    return _within(root / layout.WRITING)


def iter_repositories(root: Path) -> Iterator[Path]:
    """The directories of repositories; one may lie in another."""
    unseen = [root / layout.REPOSITORIES]
    while unseen:
        directory = unseen.pop()
        names = _names(directory)
        unseen += [directory / name for name in names if not name.startswith("_")]
        if any(name.startswith("_") for name in names):
            yield directory


def iter_links(directory: Path) -> Iterator[Digest]:
    """What the links in a directory are to, as their own names tell."""
    for algorithm in _within(directory):
        for name in _names(algorithm):
            if digest := _digest(algorithm.name, name):
                yield digest


def iter_tags(repository: Path) -> Iterator[Path]:
    """The directories of a repository's tags."""
    return _within(repository / layout.TAGS)


def iter_manifests(root: Path) -> Iterator[Digest]:
    """What repositories have as manifests, each as often as that is."""
    for repository in iter_repositories(root):
        yield from iter_links(repository / layout.REVISIONS)


def read_references(root: Path, manifest: Digest) -> tuple[Digest, ...]:
    """What a manifest refers to; nothing where it is not held, or is none."""
    found = atomic_file.read_small_file(root / layout.data(manifest))
    parts = parse_references(found.data) if found and manifest.matches(found.data) else None
    return (*parts.blobs, *parts.manifests) if parts else ()


def _within(directory: Path) -> Iterator[Path]:
    return (directory / name for name in _names(directory))


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _digest(algorithm: str, hexadecimal: str) -> Digest | None:
    try:
        return Digest.parse(f"{algorithm}:{hexadecimal}")
    except DigestInvalid:
        return None


Removal = Callable[[], int]
"""Removes a link; how many files and directories went with it."""


def remove_content(root: Path, digest: Digest, removals: Iterable[Removal]) -> int:
    """Removes the links and the bytes of a content; how many files and directories went."""
    data = root / layout.data(digest)
    count = sum(removal() for removal in removals)
    count += files.remove(data)
    return count + files.remove_empty(data.parent, root / layout.BLOBS)


def links_to(root: Path, gone: Callable[[Digest], bool]) -> Iterator[tuple[Digest, Removal]]:
    """How to remove each link and each tag of what is to go; what comes first is to go first."""
    for repository in iter_repositories(root):
        for tag in iter_tags(repository):
            yield from _of_tag(root, tag, gone)
        for directory in (repository / layout.REVISIONS, repository / layout.LAYERS):
            yield from _in_directory(root, directory, gone)


def _of_tag(root: Path, tag: Path, gone: Callable[[Digest], bool]) -> Iterator[tuple[Digest, Removal]]:
    named = links.read_link(tag / layout.CURRENT)
    if named is not None and gone(named.digest):
        yield named.digest, partial(_forget_tag, root, tag, named.digest)
    yield from _in_directory(root, tag / layout.INDEX, gone)


def _in_directory(
    root: Path, directory: Path, gone: Callable[[Digest], bool]
) -> Iterator[tuple[Digest, Removal]]:
    for digest in iter_links(directory):
        if gone(digest):
            yield digest, partial(links.remove_link, directory / layout.entry(digest), root)


def _forget_tag(root: Path, tag: Path, digest: Digest) -> int:
    """Unless it names another by now."""
    return links.forget_tag(tag, root) if links.links_to(tag / layout.CURRENT, digest) else 0
