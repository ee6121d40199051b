"""A file to which lines are added."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from dockmirror.system.append_only_file import AppendOnlyFile
from tests.stacks import logged


def test_lines(tmp_path: Path) -> None:
    """Stand behind those that were there, whoever wrote them; only the owner may read them."""
    path = tmp_path / "audit"
    one, other = AppendOnlyFile(path), AppendOnlyFile(path)
    one.write("a")
    other.write("b")
    one.write("\N{SNOWMAN}")
    assert path.read_text("utf-8") == "a\nb\n\N{SNOWMAN}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    one.close()
    other.close()


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stops nobody and is told of once, until lines are taken again."""
    full = AppendOnlyFile(Path("/dev/full"))
    with logged() as texts:
        full.write("a")
        full.write("b")
        assert len(texts) == 1
        with monkeypatch.context() as taking:
            taking.setattr(os, "write", lambda *_: 1)
            full.write("c")
        full.write("d")
    assert [("No space left" in text, "/dev/full" in text) for text in texts] == [(True, True)] * 2
    full.close()


def test_where_it_cannot_be(tmp_path: Path) -> None:
    """It cannot be opened."""
    with pytest.raises(OSError, match="nowhere"):
        AppendOnlyFile(tmp_path / "nowhere" / "audit")
