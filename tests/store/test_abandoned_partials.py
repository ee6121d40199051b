"""Abandoned partial downloads and temporary files are deleted."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from dockmirror.oci.digest import Digest
from dockmirror.store import layout
from dockmirror.store.eviction.eviction import delete_abandoned

NOW = 1_700_000_000.0
DAY = 24 * 3600.0
HOUR = 3600.0
PART = layout.growing("docker.io", Digest.of(b""))
SIZE = layout.growing_size("docker.io", Digest.of(b""))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty store."""
    (tmp_path / PART).parent.mkdir(parents=True)
    (tmp_path / layout.TEMPORARY).mkdir(parents=True)
    return tmp_path


def write_file(path: Path, age: float) -> Path:
    """Write a file of that age."""
    path.write_bytes(b"bytes")
    os.utime(path, (NOW - age, NOW - age))
    return path


def test_old_partial(root: Path) -> None:
    """A partial download is deleted after a day, together with its size file."""
    part, size = write_file(root / PART, DAY), write_file(root / SIZE, 2 * DAY)
    assert delete_abandoned(root, NOW) == 0
    assert part.exists()
    assert size.exists()
    assert delete_abandoned(root, NOW + 1) == 1
    assert not part.exists()
    assert not size.exists()


def test_locked_partial(root: Path) -> None:
    """A partial download that is locked stays, however long ago its last byte came."""
    part, size = write_file(root / PART, 9 * DAY), write_file(root / SIZE, 9 * DAY)
    with part.open("rb") as filling:
        fcntl.flock(filling, fcntl.LOCK_EX)
        assert delete_abandoned(root, NOW) == 0
        assert part.exists()
        assert size.exists()
    assert delete_abandoned(root, NOW) == 1


def test_size_file_alone(root: Path) -> None:
    """A size file without a partial download is deleted after a day."""
    size = write_file(root / SIZE, DAY)
    delete_abandoned(root, NOW)
    assert size.exists()
    assert delete_abandoned(root, NOW + 1) == 0
    assert not size.exists()


def test_temporary_files(root: Path) -> None:
    """Temporary files are deleted after an hour, unless a living writer has locked them."""
    young, old, living = (
        write_file(root / layout.TEMPORARY / name, age)
        for name, age in (("1", HOUR), ("2", HOUR + 1), ("3", DAY))
    )
    with living.open("rb") as writing:
        fcntl.flock(writing, fcntl.LOCK_EX)
        delete_abandoned(root, NOW)
    assert [path.exists() for path in (young, old, living)] == [True, False, True]


def test_trial_directories(root: Path) -> None:
    """The directory of a start that was killed is deleted after an hour."""
    trial = root / layout.TEMPORARY / "try-1"
    trial.mkdir()
    write_file(trial / "V1", DAY)
    os.utime(trial, (NOW - HOUR, NOW - HOUR))
    delete_abandoned(root, NOW)
    assert trial.exists()
    delete_abandoned(root, NOW + 1)
    assert not trial.exists()


def test_no_store(tmp_path: Path) -> None:
    """A directory without a store is left alone."""
    assert delete_abandoned(tmp_path, NOW) == 0
