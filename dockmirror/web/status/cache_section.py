"""What the page shows of the cache: how full it is, and what it was good for in the last hours."""

from __future__ import annotations

from twisted.web.template import Tag, tags

from ...status.status_values import CacheUsage
from ..pages.home_view import format_size
from ..pages.languages import Language
from ..pages.page import section
from . import chart
from .chart import Bar
from .overview import Status
from .words import format_percent

_HOUR = 4
"""Bars of an hour."""


def render_cache(status: Status, say: Language) -> Tag:
    """That part of the page."""
    part = section("cache", say("status.cache"))
    held = status.worker_state.cache
    if held is None:
        return part(tags.p(say("status.no_cache"), class_="none"))
    bars, hours = chart.group_slots(status.slots), chart.count_hours(status.slots)
    tiles = tags.dl(
        _tile(
            "held",
            format_size(held.bytes),
            say("status.limit", size=format_size(held.limit)),
            say,
            _full(held),
        ),
        _tile("hits", _share(bars[-_HOUR:]), say("status.hour"), say),
        _tile("hits", _share(bars), say("status.hours", count=hours), say),
        class_="tiles",
    )
    return part(tiles, _charts(bars, held, hours, say))


def _charts(bars: list[Bar], held: CacheUsage, hours: int, say: Language) -> list[Tag]:
    told = say("status.ratio.told", share=_share(bars))
    most = max((bar.asked for bar in bars), default=0)
    volume, of_all = say("status.volume"), say("status.size")
    return [
        _chart(_legend(say), "100 %", chart.draw_hit_ratios(bars, told), hours, say),
        _chart(volume, str(most), chart.draw_volumes(bars, volume), hours, say)(class_="chart low"),
        _chart(of_all, format_size(held.limit), chart.draw_sizes(bars, held.limit, of_all), hours, say),
    ]


def _full(held: CacheUsage) -> Tag:
    return tags.progress(value=str(held.bytes), max=str(max(held.limit, 1)))


def _share(bars: list[Bar]) -> str:
    return format_percent(sum(bar.hits for bar in bars), sum(bar.asked for bar in bars))


def _tile(name: str, value: str, what: str, say: Language, *more: Tag) -> Tag:
    return tags.div(tags.dt(say(f"status.{name}")), tags.dd(tags.strong(value), " ", what, *more))


def _legend(say: Language) -> list[Tag]:
    return [tags.span(say(f"status.{kind}"), class_=f"key {kind}") for kind in ("hit", "miss")]


def _chart(title: str | list[Tag], top: str, svg: Tag, hours: int, say: Language) -> Tag:
    ago = (say("status.ago", count=hours), say("status.ago", count=hours // 2), say("status.now"))
    axis = tags.p([tags.span(each) for each in ago], class_="axis")
    caption = tags.figcaption(tags.span(title), tags.span(top, class_="top"))
    return tags.figure(caption, svg, axis, class_="chart")
