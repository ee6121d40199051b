"""To whom belongs what root makes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dockmirror.system.ownership import chown_to_parent, make_directory_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")


def owner(path: Path) -> tuple[int, int]:
    """Its user and group."""
    return path.stat().st_uid, path.stat().st_gid


def test_made(tmp_path: Path) -> None:
    """A directory that is not there is made for the user alone; one that is there is left as it is."""
    directory = tmp_path / "above" / "cache"
    make_directory_for(directory, 65534, 65533)
    assert owner(directory) == (65534, 65533)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert owner(directory.parent) == (0, 0)
    make_directory_for(directory, 1, 1)
    assert owner(directory) == (65534, 65533)


def test_given(tmp_path: Path) -> None:
    """A file goes to whom its directory belongs."""
    file = tmp_path / "file"
    file.touch()
    chown_to_parent(file)
    assert owner(file) == owner(tmp_path) == (0, 0)
    os.chown(tmp_path, 65534, 65533)
    chown_to_parent(file)
    assert owner(file) == (65534, 65533)
