"""How much a store holds, as the processes that share it know."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.store import layout
from dockmirror.store.eviction.figures import Figures, only_one


@given(st.builds(Figures, st.integers(), st.floats(0, 1e12)))
def test_round_trip(figures: Figures) -> None:
    """What was written is read; a beginning of it is not."""
    text = str(figures)
    assert Figures.parse(text) == figures
    assert {Figures.parse(text[:end]) for end in range(len(text))} == {None}


@pytest.mark.parametrize("text", ["", "x", "1 2", "1 x .\n", "x 2 .\n", "1 2 .\n3 .\n", "1 2 .\n\0"])
def test_malformed(text: str) -> None:
    """Figures that were not written whole are not known."""
    assert Figures.parse(text) is None


def test_one_at_a_time(tmp_path: Path) -> None:
    """While one has the figures nobody else has; then they are what that one wrote."""
    with only_one(tmp_path) as figures:
        assert figures is not None
        assert figures.read() is None
        figures.write(Figures(1000, 2000.5))
        with only_one(tmp_path) as others:
            assert others is None
        figures.write(Figures(1, 2))
    with only_one(tmp_path) as figures:
        assert figures is not None
        assert figures.read() == Figures(1, 2)
    (tmp_path / layout.HELD).write_bytes(b"\xff\xfe")
    with only_one(tmp_path) as figures:
        assert figures is not None
        assert figures.read() is None
