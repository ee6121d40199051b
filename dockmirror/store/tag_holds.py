"""Manifests that tags are served as although their registry has moved on; they are not evicted meanwhile.

A file for each tag; all calls block.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ..oci.digest import Digest
from ..oci.errors import DigestInvalid
from ..oci.reference import Repository, Tag
from . import files, layout

HOLD_SECONDS = 30 * 86_400.0
"""Seconds since its last use for which a manifest is held."""


def hold(root: Path, repository: Repository, tag: Tag, digest: Digest, now: float) -> None:
    """Hold the manifest that a tag is served as.

    :param repository: the store's name of it, which begins with the registry.
    :raises OSError: when it cannot be written.
    """
    path = root / layout.tag_hold(f"{repository}:{tag}")
    files.replace_file(path, str(digest).encode(), root / layout.TEMPORARY, now)


def iter_held(root: Path, now: float) -> Iterator[Digest]:
    """Iterate over the manifests that are held; files of tags that nobody pulls any more are deleted."""
    with suppress(FileNotFoundError):
        for name in os.listdir(root / layout.TAG_HOLDS):
            path = root / layout.TAG_HOLDS / name
            found = files.read_small_file(path)
            if found is None:
                continue
            if abs(now - found.modified) > HOLD_SECONDS:
                files.remove(path)
                continue
            with suppress(DigestInvalid):
                yield Digest.parse(found.data.decode("ascii", "replace"))
