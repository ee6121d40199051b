"""Files and directories that other processes change at the same time."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from dockmirror.store import files


def test_publish_while_directories_are_removed(tmp_path: Path) -> None:
    """A file is published although its directory is removed again and again."""
    target = tmp_path / "a" / "b" / "c" / "data"
    placed = threading.Event()

    def tidy() -> None:
        while not placed.wait(0.0001):
            files.remove_empty(target.parent, tmp_path)

    tidying = threading.Thread(target=tidy)
    tidying.start()
    try:
        for number in range(200):
            source = tmp_path / "source"
            source.write_text(str(number))
            files.publish(source, target)
            assert target.read_text() == str(number)
            files.remove(target)
    finally:
        placed.set()
        tidying.join()


def test_publish_a_missing_file(tmp_path: Path) -> None:
    """A missing file cannot be published."""
    with pytest.raises(FileNotFoundError):
        files.publish(tmp_path / "source", tmp_path / "a" / "target")


def test_remove_empty(tmp_path: Path) -> None:
    """Empty directories are removed upwards, to the given one; missing ones are skipped."""
    (tmp_path / "top" / "kept" / "a" / "b").mkdir(parents=True)
    (tmp_path / "top" / "kept" / "file").touch()
    assert files.remove_empty(tmp_path / "top" / "kept" / "a" / "b" / "never", tmp_path / "top") == 2
    assert (tmp_path / "top" / "kept" / "file").exists()
    files.remove(tmp_path / "top" / "kept" / "file")
    assert files.remove_empty(tmp_path / "top" / "kept", tmp_path / "top") == 1
    assert (tmp_path / "top").is_dir()


def test_remove(tmp_path: Path) -> None:
    """Removing reports whether there was a file; a path below a file has none."""
    (tmp_path / "file").touch()
    assert not files.remove(tmp_path / "file" / "within")
    assert files.remove(tmp_path / "file")
    assert not files.remove(tmp_path / "file")
