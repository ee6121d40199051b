"""The mark of a content that nobody has written to since it was verified."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from dockmirror.store.seal import is_sealed, seal, touch_sealed

NOW = 1_700_000_000.75


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """As it was written."""
    file = tmp_path / "file"
    file.write_bytes(b"content")
    os.utime(file, (NOW, NOW))
    return file


def test_a_seal(file: Path) -> None:
    """Tells the second, too; it is not there before."""
    assert not is_sealed(file.stat())
    assert seal(file, NOW)
    assert is_sealed(file.stat())
    assert int(file.stat().st_mtime) == int(NOW)


def test_whoever_writes_breaks_it(file: Path) -> None:
    """Be it a byte, or none behind where it is cut."""
    for write in (lambda: file.write_bytes(b"Content"), lambda: os.truncate(file, 3)):
        seal(file, NOW)
        write()
        assert not is_sealed(file.stat())


@pytest.mark.parametrize("sealed", [True, False])
def test_a_use_leaves_it(file: Path, sealed: bool) -> None:
    """As it was."""
    if sealed:
        seal(file, NOW)
    touch_sealed(file, NOW + 100)
    assert is_sealed(file.stat()) is sealed
    assert int(file.stat().st_mtime) == int(NOW + 100)


def test_what_is_cut_short_while_it_is_used(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is not sealed anew."""
    seal(file, NOW)
    set_time = os.utime

    def cut_short(path: Path, *args: Any, **times: Any) -> None:
        if path.stat().st_size > 3:
            os.truncate(path, 3)
        set_time(path, *args, **times)

    monkeypatch.setattr(os, "utime", cut_short)
    touch_sealed(file, NOW + 100)
    assert not is_sealed(file.stat())
