"""What nobody will finish."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from dockmirror.oci.digest import Digest
from dockmirror.store import layout
from dockmirror.store.eviction.abandoned_partials import delete_abandoned

NOW = 1_700_000_000.0
DAY = 24 * 3600.0
HOUR = 3600.0
PART = layout.growing("docker.io", Digest.of(b""))
SIZE = layout.growing_size("docker.io", Digest.of(b""))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Of a store that holds nothing."""
    (tmp_path / PART).parent.mkdir(parents=True)
    (tmp_path / layout.TEMPORARY).mkdir(parents=True)
    return tmp_path


def put(path: Path, age: float) -> Path:
    """A file of that age."""
    path.write_bytes(b"bytes")
    os.utime(path, (NOW - age, NOW - age))
    return path


def test_a_part_of_yesterday(root: Path) -> None:
    """Is dropped after a day, and what tells its size with it."""
    part, size = put(root / PART, DAY), put(root / SIZE, 2 * DAY)
    assert delete_abandoned(root, NOW) == 0
    assert part.exists()
    assert size.exists()
    assert delete_abandoned(root, NOW + 1) == 1
    assert not part.exists()
    assert not size.exists()


def test_a_part_that_is_filled(root: Path) -> None:
    """Is locked, and stays, however long ago its last byte came."""
    part, size = put(root / PART, 9 * DAY), put(root / SIZE, 9 * DAY)
    with part.open("rb") as filling:
        fcntl.flock(filling, fcntl.LOCK_EX)
        assert delete_abandoned(root, NOW) == 0
        assert part.exists()
        assert size.exists()
    assert delete_abandoned(root, NOW) == 1


def test_a_size_alone(root: Path) -> None:
    """Is dropped as well, after a day."""
    size = put(root / SIZE, DAY)
    delete_abandoned(root, NOW)
    assert size.exists()
    assert delete_abandoned(root, NOW + 1) == 0
    assert not size.exists()


def test_files_of_dead_writers(root: Path) -> None:
    """Go after an hour; those of the living are locked, and stay."""
    young, old, living = (
        put(root / layout.TEMPORARY / name, age) for name, age in (("1", HOUR), ("2", HOUR + 1), ("3", DAY))
    )
    with living.open("rb") as writing:
        fcntl.flock(writing, fcntl.LOCK_EX)
        delete_abandoned(root, NOW)
    assert [path.exists() for path in (young, old, living)] == [True, False, True]


def test_directories_of_dead_starts(root: Path) -> None:
    """Go after an hour, with what is in them."""
    trial = root / layout.TEMPORARY / "try-1"
    trial.mkdir()
    put(trial / "V1", DAY)
    os.utime(trial, (NOW - HOUR, NOW - HOUR))
    delete_abandoned(root, NOW)
    assert trial.exists()
    delete_abandoned(root, NOW + 1)
    assert not trial.exists()


def test_nothing_there(tmp_path: Path) -> None:
    """There is nothing to do in a directory that holds no store yet."""
    assert delete_abandoned(tmp_path, NOW) == 0
