"""Lines for whoever takes them."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

import pytest

from dockmirror.system.posix import AppendOnlyFile, LineWriter, write_line
from tests.stacks import logged


def test_a_pipe_that_nobody_reads() -> None:
    """Stops nobody, and is told of once, by its name."""
    reading, writing = os.pipe()
    os.close(reading)
    lines = LineWriter("standard output", lambda line: os.write(writing, line.encode()))
    with logged() as texts:
        lines.write("a")
        lines.write("b")
    os.close(writing)
    (text,) = texts
    assert "cannot write to standard output: Broken pipe" in text


def test_what_takes_them() -> None:
    """Lines are written unchanged."""
    taken: list[str] = []
    LineWriter("a list", taken.append).write("a")
    assert taken == ["a"]


class Writes(io.RawIOBase):
    """A pipe that shows each write to it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        self.seen.append(bytes(data))  # type: ignore[call-overload]
        return len(self.seen[-1])


@pytest.mark.parametrize("length", [10, 20_000])
@pytest.mark.parametrize("buffered", [True, False])
def test_one_write(buffered: bool, length: int) -> None:
    """A line and its end are one write, so that no other process's line comes in between."""
    pipe = Writes()
    raw = io.BufferedWriter(pipe) if buffered else pipe
    write_line(io.TextIOWrapper(raw, write_through=not buffered), "a" * length)  # type: ignore[type-var]
    assert pipe.seen == [b"a" * length + b"\n"]


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
