"""Lines for whoever takes them."""

from __future__ import annotations

import io
import os

import pytest

from dockmirror.system.line_writer import LineWriter, write_line
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
    assert "standard output takes no lines: Broken pipe" in text


def test_what_takes_them() -> None:
    """Is given each as it is."""
    taken: list[str] = []
    LineWriter("a list", taken.append).write("a")
    assert taken == ["a"]


class Writes(io.RawIOBase):
    """A pipe that shows each write to it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[bytes] = []

    def writable(self) -> bool:
        """See ``io.RawIOBase``."""
        return True

    def write(self, data: object) -> int:
        """See ``io.RawIOBase``."""
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
