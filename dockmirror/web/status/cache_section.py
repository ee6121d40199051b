"""The cache section of the status page: its size, and charts of the last hours as SVG bars of any width."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attrs import frozen
from twisted.web.template import Tag, tags

from ...config.notation import format_size
from ...status.cache_series import PERIOD, SeriesSlot
from ...status.status_values import CacheUsage
from ..pages.page import Language, section
from .overview import Status
from .status_text import format_percent

_SLOTS_A_BAR = 3
_HEIGHT = 100


@frozen
class Bar:
    """Several slots combined.

    :ivar held: bytes in the cache at their end; None if not known yet.
    """

    begins: int
    asked: int
    hits: int
    held: int | None


def group_slots(slots: Sequence[SeriesSlot]) -> list[Bar]:
    """Group slots into bars of a quarter of an hour; an unknown cache size is that of the bar before."""
    grouped: list[Bar] = []
    held: int | None = None
    first = -len(slots) % _SLOTS_A_BAR
    for position in range(-first, len(slots), _SLOTS_A_BAR):
        group = slots[max(0, position) : position + _SLOTS_A_BAR]
        held = next((slot.held for slot in reversed(group) if slot.held is not None), held)
        grouped.append(
            Bar(group[0].begins, sum(slot.asked for slot in group), sum(slot.hits for slot in group), held)
        )
    return grouped


def count_hours(slots: Sequence[SeriesSlot]) -> int:
    """Return the number of hours that the slots span."""
    return len(slots) * PERIOD // 3600


def draw_hit_ratios(drawn: Sequence[Bar], label: str) -> Tag:
    """Draw hits and misses of each bar as shares of 100%."""
    return _svg(
        label, len(drawn), (shape for position, bar in enumerate(drawn) for shape in _ratio(position, bar))
    )


def draw_volumes(drawn: Sequence[Bar], label: str) -> Tag:
    """Draw the requests of each bar, relative to the busiest one."""
    peak = max((bar.asked for bar in drawn), default=0)
    heights = ((position, _HEIGHT * bar.asked / peak) for position, bar in enumerate(drawn) if bar.asked)
    return _svg(label, len(drawn), (_bar(position, 0, height, "asked") for position, height in heights))


def draw_sizes(drawn: Sequence[Bar], limit: int, label: str) -> Tag:
    """Draw the cache size of each bar, relative to the limit."""
    peak = max(limit, *(bar.held or 0 for bar in drawn), 1)
    heights = ((position, _HEIGHT * bar.held / peak) for position, bar in enumerate(drawn) if bar.held)
    return _svg(
        label, len(drawn), (_bar(position, 0, height, "held", width=1.0) for position, height in heights)
    )


def _ratio(position: int, bar: Bar) -> Iterator[Tag]:
    if bar.asked:
        share = _HEIGHT * bar.hits / bar.asked
        for low, high, kind in ((0.0, share, "hit"), (share, float(_HEIGHT), "miss")):
            if low != high:
                yield _bar(position, low, high, kind)


def _bar(position: int, low: float, high: float, kind: str, width: float = 0.8) -> Tag:
    return Tag("rect")(
        class_=kind,
        x=f"{position + (1 - width) / 2:g}",
        y=f"{_HEIGHT - high:.1f}",
        width=f"{width:g}",
        height=f"{high - low:.1f}",
    )


def _svg(label: str, width: int, shapes: Iterator[Tag]) -> Tag:
    size = {"viewBox": f"0 0 {width} {_HEIGHT}", "preserveAspectRatio": "none", "aria-label": label}
    return Tag("svg")(*shapes, role="img", **size)


_HOUR = 4
"""Bars of an hour."""


def render_cache(status: Status, say: Language) -> Tag:
    part = section("cache", say("status.cache"))
    usage = status.worker_state.cache
    if usage is None:
        return part(tags.p(say("status.no_cache"), class_="none"))
    bars, hours = group_slots(status.slots), count_hours(status.slots)
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
        _chart(_legend(say), "100 %", draw_hit_ratios(bars, label), hours, say),
        _chart(volume, str(peak), draw_volumes(bars, volume), hours, say)(class_="chart low"),
        _chart(of_all, format_size(usage.limit), draw_sizes(bars, usage.limit, of_all), hours, say),
    ]


def _full(usage: CacheUsage) -> Tag:
    return tags.progress(value=str(usage.bytes), max=str(max(usage.limit, 1)))


def _share(bars: list[Bar]) -> str:
    return format_percent(sum(bar.hits for bar in bars), sum(bar.asked for bar in bars))


def _tile(name: str, value: str, unit: str, say: Language, *more: Tag) -> Tag:
    return tags.div(tags.dt(say(f"status.{name}")), tags.dd(tags.strong(value), " ", unit, *more))


def _legend(say: Language) -> list[Tag]:
    return [tags.span(say(f"status.{kind}"), class_=f"key {kind}") for kind in ("hit", "miss")]


def _chart(title: str | list[Tag], top: str, svg: Tag, hours: int, say: Language) -> Tag:
    ago = (say("status.ago", count=hours), say("status.ago", count=hours // 2), say("status.now"))
    axis = tags.p([tags.span(each) for each in ago], class_="axis")
    caption = tags.figcaption(tags.span(title), tags.span(top, class_="top"))
    return tags.figure(caption, svg, axis, class_="chart")
