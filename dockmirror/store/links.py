"""Links: small files that say which contents a repository has and what its tags name; all calls block."""

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
    """A link that was read: its target, when it was confirmed, and the version of its file."""

    path: Path
    entry: TagEntry
    version: atomic_file.Version

    def is_current(self) -> bool:
        """Report whether the file is unchanged since it was read."""
        return atomic_file.file_version(self.path) == self.version


def read_link(link: Path) -> TagEntry | None:
    """Return the link's target and when it was confirmed; None if it is missing or malformed."""
    found = read_stored_link(link)
    return found.entry if found else None


def read_stored_link(path: Path) -> StoredLink | None:
    """Read a link with its file's version; None if it is missing or malformed."""
    found = atomic_file.read_small_file(path)
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
    atomic_file.replace_file(link, str(digest).encode(), root / layout.TEMPORARY, confirmed)


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
