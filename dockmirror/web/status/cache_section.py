"""The cache section of the status page: its size, and its hit ratio in the last hours."""

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
    part = section("cache", say("status.cache"))
    usage = status.worker_state.cache
    if usage is None:
        return part(tags.p(say("status.no_cache"), class_="none"))
    bars, hours = chart.group_slots(status.slots), chart.count_hours(status.slots)
    tiles = tags.dl(
        _tile(
            "held",
            format_size(usage.bytes),
            say("status.limit", size=format_size(usage.limit)),
            say,
            _full(usage),
        ),
        _tile("hits", _share(bars[-_HOUR:]), say("status.hour"), say),
        _tile("hits", _share(bars), say("status.hours", count=hours), say),
        class_="tiles",
    )
    return part(tiles, _charts(bars, usage, hours, say))


def _charts(bars: list[Bar], usage: CacheUsage, hours: int, say: Language) -> list[Tag]:
    label = say("status.ratio.told", share=_share(bars))
    peak = max((bar.asked for bar in bars), default=0)
    volume, of_all = say("status.volume"), say("status.size")
    return [
        _chart(_legend(say), "100 %", chart.draw_hit_ratios(bars, label), hours, say),
        _chart(volume, str(peak), chart.draw_volumes(bars, volume), hours, say)(class_="chart low"),
        _chart(of_all, format_size(usage.limit), chart.draw_sizes(bars, usage.limit, of_all), hours, say),
    ]


def _full(usage: CacheUsage) -> Tag:
    return tags.progress(value=str(usage.bytes), max=str(max(usage.limit, 1)))


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
