"""Charts of the traffic: SVG bars that show their values under the pointer, each with a table of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

from attrs import frozen
from twisted.web.template import Tag, tags

from ...config.notation import format_size
from ...history.pulls import PullSums, add_sums
from ..pages.page import Language, table

Step = Literal["hour", "day", "week"]
COLUMNS = ("time", "pulls", "failed", "cached", "fetched")
_STEPS: dict[Step, timedelta] = {
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
    "week": timedelta(weeks=1),
}
_HEIGHT = 100


@frozen
class Bar:
    """An hour, a day or a week of traffic; it begins at a time in UTC."""

    begins: datetime
    sums: PullSums


def make_bars(sums: Sequence[PullSums], step: Step, count: int, now: float) -> list[Bar]:
    """Return so many bars up to now, the oldest first, empty ones too.

    :param sums: by hour or by day; those of days are added up to weeks.
    """
    last, length = _begin_of(datetime.fromtimestamp(now, UTC), step), _STEPS[step]
    grouped: dict[datetime, list[PullSums]] = {last - number * length: [] for number in range(count)}
    for each in sums:
        begins = _begin_of(datetime.fromisoformat(each.key).replace(tzinfo=UTC), step)
        grouped.setdefault(begins, []).append(each)
    times = (last - number * length for number in reversed(range(count)))
    return [Bar(begins, add_sums("", grouped[begins])) for begins in times]


def _begin_of(time: datetime, step: Step) -> datetime:
    if step == "hour":
        return time.replace(minute=0, second=0, microsecond=0)
    day = time.replace(hour=0, minute=0, second=0, microsecond=0)
    return day if step == "day" else day - timedelta(days=day.weekday())


def format_time(bar: Bar, step: Step) -> str:
    return bar.begins.strftime("%H:%M" if step == "hour" else "%m-%d")


def format_row(bar: Bar, step: Step) -> list[str]:
    """Return the cells of a bar's row in a table; see ``COLUMNS``."""
    sums = bar.sums
    sizes = format_size(sums.cached_bytes), format_size(sums.upstream_bytes)
    return [format_time(bar, step), f"{sums.pulls:,}", f"{sums.failed:,}", *sizes]


def render_chart(bars: Sequence[Bar], step: Step, say: Language) -> Tag:
    """Return a chart of the bytes that were sent, with its table."""
    title = say(f"status.{step}s", count=len(bars))
    total = add_sums("", (bar.sums for bar in bars))
    size = {"viewBox": f"0 0 {len(bars)} {_HEIGHT}", "preserveAspectRatio": "none"}
    label = f"{title}: {_describe(total, say)}"
    peak = max((_sent(bar.sums) for bar in bars), default=0)
    drawn = (_draw(position, bar, peak, step, say) for position, bar in enumerate(bars))
    ends = [format_time(bars[position], step) for position in (0, len(bars) // 2, -1)]
    return tags.figure(
        tags.figcaption(tags.span(title), tags.span(format_size(peak), class_="top")),
        Tag("svg")(*drawn, role="img", **{**size, "aria-label": label}),
        tags.p([tags.span(each) for each in ends], class_="axis"),
        Tag("output")(label, class_="value"),
        _as_table(bars, step, title, say),
        class_="chart",
        id=f"{step}s",
    )


def _as_table(bars: Sequence[Bar], step: Step, title: str, say: Language) -> Tag:
    rows = [format_row(bar, step) for bar in reversed(bars) if bar.sums.pulls or _sent(bar.sums)]
    if not rows:
        return tags.p(say("status.no_pulls"), class_="none")
    columns = [say(f"status.column.{name}") for name in COLUMNS]
    cells = (tags.tr(tags.th(row[0], scope="row"), [tags.td(each) for each in row[1:]]) for row in rows)
    named = tags.summary(say("status.as_table"), tags.span(f" {title}", class_="unseen"))
    return tags.details(named, table(columns, cells, "numbers plain"))


def _sent(sums: PullSums) -> int:
    return sums.cached_bytes + sums.upstream_bytes


def _describe(sums: PullSums, say: Language) -> str:
    cached, fetched = format_size(sums.cached_bytes), format_size(sums.upstream_bytes)
    counts = {"pulls": f"{sums.pulls:,}", "failed": f"{sums.failed:,}"}
    return say("status.bar", cached=cached, fetched=fetched, **counts)


def _draw(position: int, bar: Bar, peak: int, step: Step, say: Language) -> Tag:
    described = f"{format_time(bar, step)} {_describe(bar.sums, say)}"
    return Tag("g")(
        Tag("title")(described),
        _rect(position, 0.0, float(_HEIGHT), "space", 1.0),
        [*_stack(position, bar.sums, peak)],
    )


def _stack(position: int, sums: PullSums, peak: int) -> Iterator[Tag]:
    low = 0.0
    for kind, size in (("hit", sums.cached_bytes), ("miss", sums.upstream_bytes)):
        if size:
            high = low + _HEIGHT * size / peak
            yield _rect(position, low, high, kind, 0.8)
            low = high


def _rect(position: int, low: float, high: float, kind: str, width: float) -> Tag:
    return Tag("rect")(
        class_=kind,
        x=f"{position + (1 - width) / 2:g}",
        y=f"{_HEIGHT - high:.1f}",
        width=f"{width:g}",
        height=f"{high - low:.1f}",
    )
