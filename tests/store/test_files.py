"""Files and directories that come and go while others use them."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from dockmirror.store import files


def test_placed_while_others_tidy(tmp_path: Path) -> None:
    """A file is given its name although its directory is removed again and again meanwhile."""
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


def test_placed_from_nowhere(tmp_path: Path) -> None:
    """What is not there cannot be given a name."""
    with pytest.raises(FileNotFoundError):
        files.publish(tmp_path / "source", tmp_path / "a" / "target")


def test_remove_empty(tmp_path: Path) -> None:
    """Goes up as far as directories are empty, or as it is told to go; what is not there is passed."""
    (tmp_path / "top" / "kept" / "a" / "b").mkdir(parents=True)
    (tmp_path / "top" / "kept" / "file").touch()
    assert files.remove_empty(tmp_path / "top" / "kept" / "a" / "b" / "never", tmp_path / "top") == 2
    assert (tmp_path / "top" / "kept" / "file").exists()
    files.remove(tmp_path / "top" / "kept" / "file")
    assert files.remove_empty(tmp_path / "top" / "kept", tmp_path / "top") == 1
    assert (tmp_path / "top").is_dir()


def test_remove(tmp_path: Path) -> None:
    """Says whether there was a file; where a file stands for a directory there was none."""
    (tmp_path / "file").touch()
    assert not files.remove(tmp_path / "file" / "within")
    assert files.remove(tmp_path / "file")
    assert not files.remove(tmp_path / "file")
