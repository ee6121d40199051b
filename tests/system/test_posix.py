"""The limit on open files, and file ownership."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockmirror.system.posix import chown_to_parent, make_directory_for, raise_connection_limit


@pytest.fixture(autouse=True)
def _limits() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_soft_limit_is_raised() -> None:
    """The soft limit is raised to the hard limit, which allows a client for three files."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    room = raise_connection_limit()
    soft, after = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert after == hard
    assert soft == min(hard, 1_000_000)
    assert room == (soft - 64) // 3


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
