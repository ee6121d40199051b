"""Lines for whoever takes them."""

from __future__ import annotations

import os

from dockmirror.system.lines import Lines
from tests.stacks import logged


def test_a_pipe_that_nobody_reads() -> None:
    """Stops nobody, and is told of once, by its name."""
    reading, writing = os.pipe()
    os.close(reading)
    lines = Lines("standard output", lambda line: os.write(writing, line.encode()))
    with logged() as texts:
        lines.write("a")
        lines.write("b")
    os.close(writing)
    (text,) = texts
    assert "standard output takes no lines: Broken pipe" in text


def test_what_takes_them() -> None:
    """Is given each as it is."""
    taken: list[str] = []
    Lines("a list", taken.append).write("a")
    assert taken == ["a"]
