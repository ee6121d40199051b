"""Links: small files that say what a repository has, and what its tags name; calls that block."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from ..interfaces import Tagged
from ..oci.digest import Digest
from ..oci.errors import DigestInvalid
from . import files, layout, small


def read(link: Path) -> Tagged | None:
    """What a link names, and since when; None where there is no link, or a malformed one."""
    found = small.read(link)
    if found is None:
        return None
    try:
        return Tagged(Digest.parse(found.data.decode("ascii")), found.modified)
    except (UnicodeDecodeError, DigestInvalid):
        return None


def names(link: Path, digest: Digest) -> bool:
    """Whether there is a link, and to this digest."""
    found = read(link)
    return found is not None and found.digest == digest


def write(link: Path, digest: Digest, root: Path, now: float) -> None:
    """Links to the digest since now.

    :raises OSError: when it cannot be written; what was linked before still is then.
    """
    if names(link, digest):
        with suppress(FileNotFoundError):  # evicted since
            os.utime(link, (now, now))
            return
    small.replace(link, str(digest).encode(), root / layout.WRITING, now)


def forget_tag(tag: Path, root: Path) -> int:
    """Removes a tag's directory, unless somebody tags anew meanwhile; how many files and directories went."""
    count = 0
    for link in (tag / layout.CURRENT, *(tag / layout.INDEX).glob("*/*/link")):
        count += remove(link, root)
    return count + files.remove_empty(tag, root / layout.REPOSITORIES)


def remove(link: Path, root: Path) -> int:
    """Removes a link and the directories that held nothing else; how many went."""
    removed = files.remove(link)
    return removed + files.remove_empty(link.parent, root / layout.REPOSITORIES)
