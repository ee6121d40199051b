"""The charts of the status page."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree

import pytest
from twisted.web.template import flattenString

from dockmirror.history.pulls import PullSums
from dockmirror.web.pages.page import LANGUAGES
from dockmirror.web.status.status_sections import Bar, Step, format_time, make_bars, render_chart
from tests.stacks import Outcome

NOW = datetime(2026, 12, 2, 14, 20, tzinfo=UTC).timestamp()  # a Wednesday


def sums(key: str, cached: int, fetched: int = 0, pulls: int = 1) -> PullSums:
    return PullSums(key, pulls, 0, cached, fetched, 0, 0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("step", "keys", "expected"),
    [
        ("hour", ["2026-12-02T14:00Z", "2026-12-02T12:00Z"], [("12:00", 1), ("13:00", 0), ("14:00", 1)]),
        ("day", ["2026-11-30", "2026-12-02"], [("11-30", 1), ("12-01", 0), ("12-02", 1)]),
        (
            "week",
            ["2026-11-16", "2026-11-22", "2026-11-29", "2026-12-01", "2026-12-02", "2020-01-01"],
            [("11-16", 2), ("11-23", 1), ("11-30", 2)],
        ),
    ],
)
def test_bars_end_now_and_have_no_gaps(step: Step, keys: list[str], expected: list[tuple[str, int]]) -> None:
    """Days are added up to weeks, which begin on Monday; what is older than the chart is left out."""
    bars = make_bars([sums(key, 10) for key in keys], step, 3, NOW)
    assert [(format_time(bar, step), bar.sums.pulls) for bar in bars] == expected


def chart(bars: list[Bar]) -> ElementTree.Element:
    body = Outcome(flattenString(None, render_chart(bars, "day", LANGUAGES["en"]))).get()
    return ElementTree.fromstring(body.decode())  # noqa: S314


def shapes(root: ElementTree.Element) -> list[tuple[Any, ...]]:
    """Return kind, position, top and height of each shape with a colour."""
    names = ("x", "y", "height")
    rects = [each.attrib for each in root.iter("rect") if each.get("class") != "space"]
    return [(rect["class"], *(float(rect[name]) // 1 for name in names)) for rect in rects]


def test_bars_stack_bytes_from_cache_and_registry_relative_to_the_peak() -> None:
    root = chart(make_bars([sums("2026-11-30", 75, 25), sums("2026-12-02", 50)], "day", 3, NOW))
    assert shapes(root) == [("hit", 0, 25, 75), ("miss", 0, 0, 25), ("hit", 2, 50, 50)]
    assert shapes(chart(make_bars([], "day", 3, NOW))) == []


def test_each_bar_has_its_values_as_title_and_the_table_has_them_too() -> None:
    """The picture itself tells the sum, and empty days are not in the table."""
    root = chart(make_bars([sums("2026-11-30", 75, 25, 7), sums("2026-12-02", 50)], "day", 3, NOW))
    titles = ["".join(each.itertext()) for each in root.iter("title")]
    assert titles[0] == "11-30 75 B from the cache, 25 B from the registry, 7 pulls, 0 failed"
    assert titles[1] == "12-01 0 B from the cache, 0 B from the registry, 0 pulls, 0 failed"
    svg = next(root.iter("svg"))
    assert svg.get("role") == "img"
    assert svg.get("aria-label") == (
        "The last 3 days: 125 B from the cache, 25 B from the registry, 8 pulls, 0 failed"
    )
    rows = [["".join(cell.itertext()) for cell in row] for row in root.iter("tr")]
    assert rows == [
        ["time", "pulls", "failed", "from the cache", "from the registry"],
        ["12-02", "1", "0", "50 B", "0 B"],
        ["11-30", "7", "0", "75 B", "25 B"],
    ]
