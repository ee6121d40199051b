"""The files of a store's directory: read, written, listed and removed; all calls block.

Contents lie apart from the links that say which repository has them, and are removed after their links.  A
kill in between leaves bytes without links, which a later scan finds.  A link that is written at that very
moment may outlive the bytes; it has no effect then, and a later scan removes it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from errno import EIO
from functools import partial
from pathlib import Path
from stat import S_ISREG

from attrs import frozen

from ..interfaces import ContentKind, TagEntry
from ..oci.digest import Digest
from ..oci.errors import DigestInvalid
from ..oci.manifest import parse_references
from ..oci.request import Repository, Tag
from . import files, layout

_PIECE = 1024 * 1024
_SECTOR = 512
"""Bytes of the unit in which the space of a file is counted."""


def is_stored(data: Path, digest: Digest) -> bool:
    """Report whether the content's file exists; only the empty content may have an empty file."""
    try:
        status = os.stat(data)
    except OSError:
        return False
    return S_ISREG(status.st_mode) and (status.st_size > 0 or digest.matches(b""))


def open_file(data: Path) -> int:
    """Open a regular file; the caller closes it.

    :raises OSError: if it is missing or not a regular file.
    """
    file = os.open(data, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if S_ISREG(os.fstat(file).st_mode):
        return file
    os.close(file)
    raise IsADirectoryError(f"{data} is not a regular file")


class ContentDeleted(OSError):
    """Raised for a content whose file was deleted, since it is corrupt or the disk cannot read it.

    :ivar freed: the number of bytes by which the store has shrunk.
    """

    def __init__(self, reason: str, freed: int) -> None:
        super().__init__(reason)
        self.freed = freed


def read_verified(data: Path, file: int, digest: Digest) -> bytes:
    """Read an open file.

    :raises ContentDeleted: if it does not match the digest, or on an I/O error.
    :raises OSError: if the disk cannot read it otherwise.
    """
    with _readable(data, file):
        content = files.read_all(file)
    if not digest.matches(content):
        raise _delete_corrupt(data, file)
    return content


def verify_or_delete(data: Path, file: int, digest: Digest) -> None:
    """Verify an open file.

    :raises OSError: like ``read_verified``.
    """
    verifier = digest.verifier()
    offset = 0
    with _readable(data, file):
        while piece := os.pread(file, _PIECE, offset):
            verifier.update(piece)
            offset += len(piece)
    if not verifier.matches():
        raise _delete_corrupt(data, file)


@contextmanager
def _readable(data: Path, file: int) -> Iterator[None]:
    """Delete a file with bad sectors, so that it can be fetched again."""
    try:
        yield
    except OSError as error:
        if error.errno != EIO:
            raise
        freed = _remove(data, file)
        raise ContentDeleted(f"{data} cannot be read ({error.strerror}) and was deleted", freed) from error


def _delete_corrupt(data: Path, file: int) -> ContentDeleted:
    return ContentDeleted(f"{data} did not match its digest and was deleted", _remove(data, file))


def _remove(data: Path, file: int) -> int:
    """Delete the file, unless its name belongs to another file by now; return the number of bytes freed."""
    status = os.fstat(file)
    with suppress(FileNotFoundError):
        if os.path.samestat(os.stat(data), status):
            os.unlink(data)
            os.utime(data.parent.parent)  # its directory may stay: ``StoreIndex`` looks at this one
            return status.st_size
    return 0


@frozen
class StoredLink:
    """A link that was read: its target, when it was confirmed, and the version of its file."""

    path: Path
    entry: TagEntry
    version: files.Version

    def is_current(self) -> bool:
        """Report whether the file is unchanged since it was read."""
        return files.file_version(self.path) == self.version


def read_link(link: Path) -> TagEntry | None:
    """Return the link's target and when it was confirmed; None if it is missing or malformed."""
    found = read_stored_link(link)
    return found.entry if found else None


def read_stored_link(path: Path) -> StoredLink | None:
    """Read a link with its file's version; None if it is missing or malformed."""
    found = files.read_small_file(path)
    if found is None:
        return None
    try:
        digest = Digest.parse(found.data.decode("ascii"))
    except (UnicodeDecodeError, DigestInvalid):
        return None
    return StoredLink(path, TagEntry(digest, found.modified), found.version)


def links_to(link: Path, digest: Digest) -> bool:
    """Report whether the link exists and has this target."""
    found = read_link(link)
    return found is not None and found.digest == digest


def write_link(link: Path, digest: Digest, root: Path, confirmed: float) -> None:
    """Write a link, confirmed now.

    :raises OSError: if that fails; the previous link is kept then.
    """
    if links_to(link, digest):
        with suppress(FileNotFoundError):  # evicted meanwhile
            os.utime(link, (confirmed, confirmed))
            return
    files.replace_file(link, str(digest).encode(), root / layout.TEMPORARY, confirmed)


def remove_tag(tag: Path, root: Path) -> int:
    """Remove a tag; one that is written meanwhile stays. Return how many paths were removed."""
    count = 0
    for link in (tag / layout.TAG_LINK, *(tag / layout.TAG_HISTORY).glob("*/*/link")):
        count += remove_link(link, root)
    return count + files.remove_empty(tag, root / layout.REPOSITORIES)


def remove_tags_of(tags: Path, digest: Digest, root: Path) -> None:
    """Remove the tags that name a digest, and the digest from the history of other tags."""
    for indexed in tags.glob(f"*/{layout.TAG_HISTORY}/{layout.link_name(digest)}"):
        tag = indexed.parents[3]
        if links_to(tag / layout.TAG_LINK, digest):
            remove_tag(tag, root)
        else:
            remove_link(indexed, root)


def remove_link(link: Path, root: Path) -> int:
    """Remove a link and the directories that become empty; return how many were removed."""
    removed = files.remove(link)
    return removed + files.remove_empty(link.parent, root / layout.REPOSITORIES)


def add_content(root: Path, digest: Digest, pieces: Iterable[bytes]) -> int:
    """Store a content; return the number of bytes that the store has grown by.

    :param pieces: its bytes; the iterator raises an exception if they are wrong.
    :raises OSError: if that fails; nothing has changed then.
    """
    path, size = root / layout.data(digest), 0
    existed = is_stored(path, digest)
    with files.open_replacement(path, root / layout.TEMPORARY) as file:
        for piece in pieces:
            files.write_all(file, piece)
            size += len(piece)
    return 0 if existed else size


def link_content(root: Path, repository: Repository, digest: Digest, kind: ContentKind, now: float) -> None:
    write_link(root / layout.link(repository, digest, kind), digest, root, now)


def set_tag(root: Path, repository: Repository, name: Tag, digest: Digest, now: float) -> None:
    """Set the tag to a stored manifest, confirmed now."""
    write_link(root / layout.tag_history(repository, name, digest), digest, root, now)
    write_link(root / layout.tag_link(repository, name), digest, root, now)


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
            for name in files.list_names(prefix):
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


OnError = Callable[[OSError], None]
"""Called for a directory that cannot be listed; the rest is listed if it returns."""


def _raise(error: OSError) -> None:
    raise error


@contextmanager
def reporting(on_error: OnError) -> Iterator[None]:
    """Report the error of a directory that cannot be listed."""
    try:
        yield
    except OSError as error:
        on_error(error)


def iter_repositories(root: Path, on_error: OnError = _raise) -> Iterator[Path]:
    """Iterate over the directories of repositories, which may be nested."""
    queue = [root / layout.REPOSITORIES]
    while queue:
        directory, names = queue.pop(), list[str]()
        with reporting(on_error):
            names = files.list_names(directory)
        queue += [directory / name for name in names if not name.startswith("_")]
        if any(name.startswith("_") for name in names):
            yield directory


def iter_links(directory: Path) -> Iterator[Digest]:
    """Iterate over the digests that a directory links to, as given by the links' names."""
    for algorithm in _iter_directory(directory):
        for name in files.list_names(algorithm):
            if digest := layout.parse_digest(algorithm.name, name):
                yield digest


def iter_tags(repository: Path) -> Iterator[Path]:
    """Iterate over the directories of a repository's tags."""
    return _iter_directory(repository / layout.TAGS_DIRECTORY)


def iter_manifests(root: Path, on_error: OnError = _raise) -> Iterator[Digest]:
    """Iterate over the manifests of all repositories, with duplicates."""
    for repository in iter_repositories(root, on_error):
        with reporting(on_error):
            yield from iter_links(repository / layout.REVISIONS)


def iter_repository_contents(root: Path) -> Iterator[tuple[str, set[Digest]]]:
    """Iterate over the names of repositories, each with the contents that it links to."""
    for path in iter_repositories(root):
        contents = {*iter_links(path / layout.REVISIONS), *iter_links(path / layout.LAYERS)}
        yield str(path.relative_to(root / layout.REPOSITORIES)), contents


def read_references(root: Path, manifest: Digest) -> tuple[Digest, ...]:
    """Return the digests that a manifest refers to; none if it is missing or malformed."""
    found = files.read_small_file(root / layout.data(manifest))
    parts = parse_references(found.data) if found and manifest.matches(found.data) else None
    return (*parts.blobs, *parts.manifests) if parts else ()


def _iter_directory(directory: Path) -> Iterator[Path]:
    return (directory / name for name in files.list_names(directory))


def find_descendants(
    roots: Iterable[Digest], references: Callable[[Digest], Iterable[Digest] | None]
) -> dict[Digest, None]:
    """Return these and everything that they refer to, each after the first that refers to it."""
    found: dict[Digest, None] = {}
    queue = list(roots)
    for digest in queue:
        if digest not in found:
            found[digest] = None
            queue += references(digest) or ()
    return found


Removal = Callable[[], int]
"""Removes a link; returns how many files and directories that removed."""


def remove_content(root: Path, digest: Digest, removals: Iterable[Removal]) -> int:
    """Remove a content after its links; return how many files and directories that removed."""
    data = root / layout.data(digest)
    count = sum(removal() for removal in removals)
    count += files.remove(data)
    return count + files.remove_empty(data.parent, root / layout.BLOBS)


def iter_removals(
    root: Path, is_removed: Callable[[Digest], bool], on_error: OnError = _raise
) -> Iterator[tuple[Digest, Removal]]:
    """Iterate over the links and tags to be removed, in the order in which they must be."""
    for repository in iter_repositories(root, on_error):
        with reporting(on_error):
            for tag in iter_tags(repository):
                yield from _iter_tag_removals(root, tag, is_removed)
            for directory in (repository / layout.REVISIONS, repository / layout.LAYERS):
                yield from _iter_link_removals(root, directory, is_removed)


def _iter_tag_removals(
    root: Path, tag: Path, is_removed: Callable[[Digest], bool]
) -> Iterator[tuple[Digest, Removal]]:
    entry = read_link(tag / layout.TAG_LINK)
    if entry is not None and is_removed(entry.digest):
        yield entry.digest, partial(_remove_tag, root, tag, entry.digest)
    yield from _iter_link_removals(root, tag / layout.TAG_HISTORY, is_removed)


def _iter_link_removals(
    root: Path, directory: Path, is_removed: Callable[[Digest], bool]
) -> Iterator[tuple[Digest, Removal]]:
    for digest in iter_links(directory):
        if is_removed(digest):
            yield digest, partial(remove_link, directory / layout.link_name(digest), root)


def _remove_tag(root: Path, tag: Path, digest: Digest) -> int:
    """Remove a tag, unless it names another manifest by now."""
    return remove_tag(tag, root) if links_to(tag / layout.TAG_LINK, digest) else 0
