"""Files and directories that other processes change at the same time."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from dockmirror.store import files
from dockmirror.store.files import is_sealed, seal, touch_sealed


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


NOW = 1_700_000_000.75


def test_publish_a_missing_file(tmp_path: Path) -> None:
    """A missing file cannot be published."""
    with pytest.raises(FileNotFoundError):
        files.publish(tmp_path / "source", tmp_path / "a" / "target")


def test_remove(tmp_path: Path) -> None:
    """Removing reports whether there was a file; empty directories are removed upwards, to the given one."""
    top, file = tmp_path / "top", tmp_path / "top" / "kept" / "file"
    (top / "kept" / "a" / "b").mkdir(parents=True)
    file.touch()
    assert files.remove_empty(top / "kept" / "a" / "b" / "never", top) == 2
    assert not files.remove(file / "within")
    assert files.remove(file)
    assert not files.remove(file)
    assert files.remove_empty(top / "kept", top) == 1
    assert top.is_dir()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "file"
    file.write_bytes(b"content")
    os.utime(file, (NOW, NOW))
    return file


def test_seal(file: Path) -> None:
    """A seal keeps the modification time's second; a new file has none, and a write breaks it."""
    for write in (lambda: None, lambda: file.write_bytes(b"Content"), lambda: os.truncate(file, 3)):
        write()
        assert not is_sealed(file.stat())
        assert seal(file, NOW, file.stat().st_size)
        assert is_sealed(file.stat())
        assert int(file.stat().st_mtime) == int(NOW)


@pytest.mark.parametrize("sealed", [True, False])
def test_touching_keeps_the_seal(file: Path, sealed: bool) -> None:
    """A use keeps the seal, or its absence."""
    if sealed:
        seal(file, NOW, len(b"content"))
    touch_sealed(file, NOW + 100)
    assert is_sealed(file.stat()) is sealed
    assert int(file.stat().st_mtime) == int(NOW + 100)


def test_truncated_while_touched(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is truncated while its use is recorded is not sealed again."""
    seal(file, NOW, len(b"content"))
    set_time = os.utime

    def cut_short(path: Path, *args: Any, **times: Any) -> None:
        if path.stat().st_size > 3:
            os.truncate(path, 3)
        set_time(path, *args, **times)

    monkeypatch.setattr(os, "utime", cut_short)
    touch_sealed(file, NOW + 100)
    assert not is_sealed(file.stat())
