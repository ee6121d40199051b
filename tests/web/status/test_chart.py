"""The last hours drawn."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.web.template import Tag

from dockmirror.status.cache_series import SeriesSlot
from dockmirror.web.status.cache_section import (
    Bar,
    count_hours,
    draw_hit_ratios,
    draw_sizes,
    draw_volumes,
    group_slots,
)


def shapes(svg: Tag) -> list[tuple[Any, ...]]:
    """Return kind, position, top and height of each shape."""
    rects = (each for each in svg.children if isinstance(each, Tag))
    return [
        (each.attributes["class"], int(float(str(each.attributes["x"]))),
         float(str(each.attributes["y"])), float(str(each.attributes["height"])))
        for each in rects
    ]  # fmt: skip


def test_bars() -> None:
    """A bar combines three slots, the last one up to now; the cache size stays until another one is known."""
    slots = [
        SeriesSlot(0, 1, 1),
        SeriesSlot(300, 4, 2, 50),
        SeriesSlot(600, 1, 0),
        SeriesSlot(900),
        SeriesSlot(1200),
        SeriesSlot(1500),
        SeriesSlot(1800, 5, 5, 70),
    ]
    assert group_slots(slots) == [Bar(0, 1, 1, None), Bar(300, 5, 2, 50), Bar(1200, 5, 5, 70)]
    assert group_slots(slots[:3]) == [Bar(0, 6, 3, 50)]
    assert group_slots([]) == []
    assert count_hours([SeriesSlot(0)] * 144) == 12


def test_ratios() -> None:
    """Each bar shows hits at the bottom and misses above; a bar without requests is empty."""
    drawn = shapes(draw_hit_ratios([Bar(0, 4, 3, None), Bar(1, 0, 0, None), Bar(2, 2, 2, None)], "told"))
    assert drawn == [("hit", 0, 25.0, 75.0), ("miss", 0, 0.0, 25.0), ("hit", 2, 0.0, 100.0)]


def test_volumes() -> None:
    """Beside the most."""
    drawn = shapes(draw_volumes([Bar(0, 1, 0, None), Bar(1, 0, 0, None), Bar(2, 4, 0, None)], "told"))
    assert drawn == [("asked", 0, 75.0, 25.0), ("asked", 2, 0.0, 100.0)]
    assert shapes(draw_volumes([], "told")) == []


@pytest.mark.parametrize(("limit", "height"), [(100, 25.0), (0, 100.0), (10, 100.0)])
def test_sizes(limit: int, height: float) -> None:
    """Beside the limit, unless there is more than that."""
    drawn = shapes(draw_sizes([Bar(0, 0, 0, None), Bar(1, 0, 0, 25)], limit, "told"))
    assert drawn == [("held", 1, 100.0 - height, height)]
