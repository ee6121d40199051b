"""Write verified contents, links and tags while no mirror needs to run; all calls block."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

from ..interfaces import ContentKind
from ..oci.digest import Digest
from ..oci.reference import Repository, Tag
from . import files, layout, links
from .data_files import is_stored


def add_content(root: Path, digest: Digest, pieces: Iterable[bytes]) -> int:
    """Store a content; return the number of bytes that the store has grown by.

    :param pieces: its bytes; the iterator raises an exception if they are wrong.
    :raises OSError: if that fails; nothing has changed then.
    """
    path = root / layout.data(digest)
    temporary = root / layout.TEMPORARY / f"{os.getpid()}-{token_hex(8)}"
    existed = is_stored(path, digest)
    with temporary.open("xb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)  # a locked file is not deleted as abandoned
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
            files.publish(temporary, path)
            return 0 if existed else file.tell()
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
            raise


def link_content(root: Path, repository: Repository, digest: Digest, kind: ContentKind, now: float) -> None:
    """Link a stored content to the repository."""
    links.write_link(root / layout.link(repository, digest, kind), digest, root, now)


def set_tag(root: Path, repository: Repository, name: Tag, digest: Digest, now: float) -> None:
    """Set the tag to a stored manifest, confirmed now."""
    links.write_link(root / layout.tag_history(repository, name, digest), digest, root, now)
    links.write_link(root / layout.tag_link(repository, name), digest, root, now)
