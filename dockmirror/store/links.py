"""Links: small files that say what a repository has, and what its tags name; calls that block."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from attrs import frozen

from ..interfaces import TagEntry
from ..oci.digest import Digest
from ..oci.errors import DigestInvalid
from . import atomic_file, files, layout


@frozen
class StoredLink:
    """A link that was read: what it names, and since when."""

    path: Path
    tagged: TagEntry
    version: atomic_file.Version

    def is_current(self) -> bool:
        """Whether it is still what it was."""
        return atomic_file.file_version(self.path) == self.version


def read_link(link: Path) -> TagEntry | None:
    """What a link names, and since when; None where there is no link, or a malformed one."""
    found = find_link(link)
    return found.tagged if found else None


def find_link(path: Path) -> StoredLink | None:
    """The link that is there, in the same way."""
    found = atomic_file.read_small_file(path)
    if found is None:
        return None
    try:
        digest = Digest.parse(found.data.decode("ascii"))
    except (UnicodeDecodeError, DigestInvalid):
        return None
    return StoredLink(path, TagEntry(digest, found.modified), found.version)


def links_to(link: Path, digest: Digest) -> bool:
    """Whether there is a link, and to this digest."""
    found = read_link(link)
    return found is not None and found.digest == digest


def write_link(link: Path, digest: Digest, root: Path, now: float) -> None:
    """Links to the digest since now.

    :raises OSError: when it cannot be written; what was linked before still is then.
    """
    if links_to(link, digest):
        with suppress(FileNotFoundError):  # evicted since
            os.utime(link, (now, now))
            return
    atomic_file.replace_file(link, str(digest).encode(), root / layout.WRITING, now)


def forget_tag(tag: Path, root: Path) -> int:
    """Removes a tag's directory, unless somebody tags anew meanwhile; how many files and directories went."""
    count = 0
    for link in (tag / layout.CURRENT, *(tag / layout.INDEX).glob("*/*/link")):
        count += remove_link(link, root)
    return count + files.remove_empty(tag, root / layout.REPOSITORIES)


def forget_named(tags: Path, digest: Digest, root: Path) -> None:
    """Remove the tags in a directory that name a digest, and the notes of others that they once did."""
    for indexed in tags.glob(f"*/{layout.INDEX}/{layout.entry(digest)}"):
        tag = indexed.parents[3]
        if links_to(tag / layout.CURRENT, digest):
            forget_tag(tag, root)
        else:
            remove_link(indexed, root)


def remove_link(link: Path, root: Path) -> int:
    """Removes a link and the directories that held nothing else; how many went."""
    removed = files.remove(link)
    return removed + files.remove_empty(link.parent, root / layout.REPOSITORIES)
