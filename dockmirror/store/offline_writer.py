"""Contents put into a store from beside its mirrors, whole and verified; calls that block."""

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
    """Keeps a content; how many bytes that has added.

    :param pieces: its bytes; what reads them raises something where they are wrong.
    :raises OSError: when it cannot be kept; nothing has changed then.
    """
    path = root / layout.data(digest)
    beside = root / layout.WRITING / f"{os.getpid()}-{token_hex(8)}"
    held = is_stored(path, digest)
    with beside.open("xb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)  # so that nobody takes it for a dead writer's
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
            files.publish(beside, path)
            return 0 if held else file.tell()
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(beside)
            raise


def link_content(root: Path, repository: Repository, digest: Digest, kind: ContentKind, now: float) -> None:
    """Says that the repository has the content, which is held already."""
    links.write_link(root / layout.link(repository, digest, kind), digest, root, now)


def set_tag(root: Path, repository: Repository, name: Tag, digest: Digest, now: float) -> None:
    """Says that the tag names this manifest, confirmed now."""
    links.write_link(root / layout.indexed(repository, name, digest), digest, root, now)
    links.write_link(root / layout.current(repository, name), digest, root, now)
