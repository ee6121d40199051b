"""The mark of files that were verified and not written to since."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from dockmirror.store.files import is_sealed, seal, touch_sealed

NOW = 1_700_000_000.75


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that was just written."""
    file = tmp_path / "file"
    file.write_bytes(b"content")
    os.utime(file, (NOW, NOW))
    return file


def test_seal(file: Path) -> None:
    """A seal keeps the modification time's second; a new file has none."""
    assert not is_sealed(file.stat())
    assert seal(file, NOW)
    assert is_sealed(file.stat())
    assert int(file.stat().st_mtime) == int(NOW)


def test_writing_breaks_the_seal(file: Path) -> None:
    """A write or a truncation breaks the seal."""
    for write in (lambda: file.write_bytes(b"Content"), lambda: os.truncate(file, 3)):
        seal(file, NOW)
        write()
        assert not is_sealed(file.stat())


@pytest.mark.parametrize("sealed", [True, False])
def test_touching_keeps_the_seal(file: Path, sealed: bool) -> None:
    """A use keeps the seal, or its absence."""
    if sealed:
        seal(file, NOW)
    touch_sealed(file, NOW + 100)
    assert is_sealed(file.stat()) is sealed
    assert int(file.stat().st_mtime) == int(NOW + 100)


def test_truncated_while_touched(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is truncated while its use is recorded is not sealed again."""
    seal(file, NOW)
    set_time = os.utime

    def cut_short(path: Path, *args: Any, **times: Any) -> None:
        if path.stat().st_size > 3:
            os.truncate(path, 3)
        set_time(path, *args, **times)

    monkeypatch.setattr(os, "utime", cut_short)
    touch_sealed(file, NOW + 100)
    assert not is_sealed(file.stat())
