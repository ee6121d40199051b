"""Contents removed: first what links to them, then their bytes.

Killed in between, there are bytes that no repository has, which a later walk finds.  A link that is
written at that very moment may outlive the bytes: it is of no effect without them, and a later walk
removes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from ...oci.digest import Digest
from .. import files, layout, links
from . import store_files

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
    for repository in store_files.iter_repositories(root):
        for tag in store_files.iter_tags(repository):
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
    for digest in store_files.iter_links(directory):
        if gone(digest):
            yield digest, partial(links.remove_link, directory / layout.entry(digest), root)


def _forget_tag(root: Path, tag: Path, digest: Digest) -> int:
    """Unless it names another by now."""
    return links.forget_tag(tag, root) if links.links_to(tag / layout.CURRENT, digest) else 0
