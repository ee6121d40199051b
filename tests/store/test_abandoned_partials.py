"""Abandoned partial downloads and temporary files are deleted."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path, PurePath

import pytest

from dockmirror.oci.digest import Digest
from dockmirror.store import layout
from dockmirror.store.eviction.removal import delete_abandoned

NOW = 1_700_000_000.0
DAY = 24 * 3600.0
HOUR = 3600.0
TEMPORARY = layout.TEMPORARY
PART = layout.growing("docker.io", Digest.of(b""))
SIZE = layout.growing_size("docker.io", Digest.of(b""))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / PART).parent.mkdir(parents=True)
    (tmp_path / TEMPORARY).mkdir(parents=True)
    return tmp_path


def write_file(path: Path, age: float) -> Path:
    path.write_bytes(b"bytes")
    os.utime(path, (NOW - age, NOW - age))
    return path


@pytest.mark.parametrize(
    ("names", "limit", "count"),
    [((PART, SIZE), DAY, 1), ((SIZE,), DAY, 0), ((TEMPORARY / "1",), HOUR, 0)],
    ids=["partial download", "size file alone", "temporary file"],
)
def test_old_files(root: Path, names: tuple[PurePath, ...], limit: float, count: int) -> None:
    """A partial download or its size file is deleted after a day, a temporary file after an hour."""
    paths = [write_file(root / name, limit) for name in names]
    assert delete_abandoned(root, NOW) == 0
    assert all(path.exists() for path in paths)
    assert delete_abandoned(root, NOW + 1) == count
    assert not any(path.exists() for path in paths)


@pytest.mark.parametrize("name", [PART, TEMPORARY / "1"])
def test_locked_files(root: Path, name: PurePath) -> None:
    """A locked file stays with its size file, however long ago it was written to."""
    path, size = write_file(root / name, 9 * DAY), write_file(root / SIZE, 9 * DAY)
    with path.open("rb") as writing:
        fcntl.flock(writing, fcntl.LOCK_EX)
        assert delete_abandoned(root, NOW) == 0
        assert path.exists()
        assert size.exists() == (name == PART)
    assert delete_abandoned(root, NOW) == (name == PART)


def test_trial_directories(root: Path) -> None:
    """The directory of a start that was killed is deleted after an hour."""
    trial = root / TEMPORARY / "try-1"
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
