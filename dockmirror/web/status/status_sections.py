"""The sections of the status page: traffic, pulls, clients, images, the cache, the mirror; their charts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

from attrs import frozen
from twisted.web.template import Tag, tags

from ...config.notation import format_size
from ...history.pulls import OTHERS, Pull, PullSums, add_sums
from ...status import WorkerState
from ..pages.history_form import HistoryForm
from ..pages.own_pulls import name_image
from ..pages.page import Language, format_age, inline_code, section, table
from .overview import (
    DAYS,
    HOURS,
    NETWORK_COLUMNS,
    WEEKS,
    FleetSummary,
    HistorySummary,
    Status,
    describe_limits,
    describe_use,
    network_rows,
)
from .status_text import (
    SUM_COLUMNS,
    SYNC_COLUMNS,
    describe_expiry,
    describe_running,
    fleet_rows,
    format_percent,
    format_sums,
    format_uptime,
    format_waiting,
    sync_rows,
)

Step = Literal["hour", "day", "week"]
COLUMNS = ("time", "pulls", "failed", "cached", "fetched")
_LENGTHS: dict[Step, timedelta] = {
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
    "week": timedelta(weeks=1),
}
_HEIGHT = 100
_STEPS: Sequence[tuple[Step, int]] = (("hour", HOURS), ("day", DAYS), ("week", WEEKS))
_DOCUMENTS = "https://github.com/dockmirror/dockmirror/blob/main/docs"
_LINKS = {
    "documents": f"{_DOCUMENTS}/how-to/monitor.md",
    "metrics": "metrics",
    "json": "status.json",
    "dashboard": f"{_DOCUMENTS}/examples/grafana.json",
    "alerts": f"{_DOCUMENTS}/examples/alerts.yml",
}


@frozen
class Bar:
    """An hour, a day or a week of traffic; it begins at a time in UTC."""

    begins: datetime
    sums: PullSums


def make_bars(sums: Sequence[PullSums], step: Step, count: int, now: float) -> list[Bar]:
    """Return so many bars up to now, the oldest first, empty ones too.

    :param sums: by hour or by day; those of days are added up to weeks.
    """
    last, length = _begin_of(datetime.fromtimestamp(now, UTC), step), _LENGTHS[step]
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


def render_traffic(status: Status, say: Language) -> Tag:
    part = section("traffic", say("status.traffic"))
    history = _available(part, status.history, say)
    if history is None:
        return part
    legend = (tags.span(say(f"status.{kind}"), class_=f"key {kind}") for kind in ("hit", "miss"))
    part(tags.p(say("status.utc"), class_="note"), tags.p([*legend]))
    for step, count in _STEPS:
        sums = history.hours if step == "hour" else history.days
        part(render_chart(make_bars(sums, step, count, status.now), step, say))
    return part


def render_running(pulls: Sequence[Pull], now: float, say: Language) -> Tag:
    """Return the list of the pulls under way."""
    items = (
        tags.li(
            tags.p(tags.code(name_image(each), title=f"{each.registry}/{each.repository} {each.reference}")),
            tags.p(describe_running(each, now, say), class_="figures"),
            id=f"pull-{each.number}",
        )
        for each in pulls
    )
    return tags.ol([*items], class_="fetches")


def render_sums(name: str, status: Status, say: Language) -> Tag:
    """Return the section of the clients or of the images that pulled, or were pulled, most this week."""
    part = section(name, say(f"status.{name}"))
    history = _available(part, status.history, say)
    if history is None:
        return part
    sums: Sequence[PullSums] = history.clients if name == "clients" else history.images
    if not sums:
        return part(tags.p(say("status.no_pulls"), class_="none"))
    columns = [say(f"status.column.{each}") for each in (name, *SUM_COLUMNS)]
    field = "client" if name == "clients" else "image"
    rows = (
        render_row(each.key or say("status.unnamed"), format_sums(each), columns, _link(field, each.key))
        for each in sums
    )
    return part(table(columns, rows, "numbers"))


def _link(field: str, key: str) -> str:
    """Return the address of the pulls of a client or of an image."""
    return HistoryForm().link(**{field: key}) if key not in ("", OTHERS) else ""


def render_fleet(status: Status, fleet: FleetSummary, say: Language) -> Tag:
    """Return the section of the mirrors that share the bucket."""
    part = section("fleet", say("status.fleet"))
    if fleet.error:
        part(tags.p(inline_code(fleet.error), class_="bad"))
    if not fleet.mirrors:
        return part(tags.p(say("status.fleet.none"), class_="none"))
    columns = [say(f"status.column.{each}") for each in ("mirror", "version", "seen", *SUM_COLUMNS)]
    rows = (render_row(name, numbers, columns) for name, *numbers in fleet_rows(fleet, status.now, say))
    return part(tags.p(say("status.fleet.what"), class_="note"), table(columns, rows, "numbers"))


def render_sync(status: Status, say: Language) -> Tag:
    """Return the section of the rules that keep images in sync."""
    part = section("sync", say("status.sync"))
    columns = [say(f"status.column.{each}") for each in SYNC_COLUMNS]
    rows = (render_row(name, cells, columns) for name, *cells in sync_rows(status.sync, status.now, say))
    return part(table(columns, rows, "numbers"))


def render_budgets(status: Status, say: Language) -> Tag:
    """Return the section of the limits on what client networks may use of images."""
    part = section("budgets", say("status.budgets"))
    columns = [say(f"status.column.{each}") for each in NETWORK_COLUMNS]
    for budget in status.budgets:
        part(
            tags.h3(tags.code(budget.images)),
            tags.p(describe_limits(budget, say), tags.br(), describe_use(budget, say)),
        )
        if budget.most:
            rows = network_rows(budget.most, status.now, say)
            part(table(columns, (render_row(name, cells, columns) for name, *cells in rows), "numbers"))
    return part


def _available(part: Tag, history: HistorySummary | None, say: Language) -> HistorySummary | None:
    """Return the history, or None after saying in the section why there is none."""
    if history is not None and not history.error:
        return history
    part(tags.p(inline_code(history.error if history else say("status.no_history")), class_="none"))
    return None


def render_row(name: str, numbers: Sequence[str], columns: Sequence[str], link: str = "") -> Tag:
    """Return a row of numbers, each labelled for narrow screens without a table head.

    :param link: the address to which the name leads; empty for none.
    """
    cells = (tags.td(each, **{"data-of": of}) for each, of in zip(numbers, columns[1:], strict=True))
    shown = tags.code(name)
    return tags.tr(tags.th(tags.a(shown, href=link) if link else shown, scope="row"), [*cells])


def render_cache(status: Status, say: Language) -> Tag:
    part = section("cache", say("status.cache"))
    if status.worker_state.cache is None:
        return part(tags.p(say("status.no_cache"), class_="none"))
    return part(tags.dl(*_tiles(status, say), class_="tiles"), *_usage(status, say))


def _tiles(status: Status, say: Language) -> Iterator[Tag]:
    usage = status.worker_state.cache
    if usage is not None:
        label = say("status.held")
        full = tags.progress(value=str(usage.bytes), max=str(max(usage.limit, 1)), **{"aria-label": label})
        yield _tile(label, format_size(usage.bytes), say("status.limit", size=format_size(usage.limit)), full)
        yield from _free_tile(status.worker_state, say)
    if status.history is not None and not status.history.error:
        total = status.history.total
        share = format_percent(total.cached_bytes, total.cached_bytes + total.upstream_bytes)
        yield _tile(say("status.hit"), share, say("status.this_week"))
        yield _tile(say("status.waiting"), format_waiting(total.saved_seconds, say), say("status.this_week"))


def _free_tile(state: WorkerState, say: Language) -> Iterator[Tag]:
    """Yield the tile of the disk's free space, unless nothing is known of it yet."""
    if state.usage is not None and state.cache is not None:
        minimum = say("status.min_free", size=format_size(state.cache.min_free))
        tile = _tile(say("status.free"), format_size(state.usage.free), minimum)
        yield tile(class_="bad") if state.usage.free < state.cache.min_free else tile


def _tile(name: str, value: str, unit: str, *more: Tag) -> Tag:
    return tags.div(tags.dt(name), tags.dd(tags.strong(value), " ", unit, *more))


def _usage(status: Status, say: Language) -> Iterator[Tag]:
    usage = status.worker_state.usage
    yield tags.h3(say("status.usage"))
    if usage is None:
        yield tags.p(say("status.no_usage"), class_="none")
        return
    yield tags.p(say("status.usage.what", age=format_age(max(0.0, status.now - usage.measured), say)))
    if not usage.registries:
        yield tags.p(say("status.nothing"), class_="none")
        return
    columns = [say(f"status.column.{name}") for name in ("registry", "size", "shared", "contents")]
    rows = (
        render_row(
            each.registry, (format_size(each.bytes), format_size(each.shared), str(each.contents)), columns
        )
        for each in usage.registries
    )
    yield table(columns, rows, "numbers")


def render_mirror(status: Status, say: Language) -> Tag:
    facts = {
        "version": status.version,
        "uptime": format_uptime(status.now - status.started, say),
        "processes": str(status.worker_state.processes),
    }
    rows = (
        tags.tr(tags.th(say(f"status.{name}"), scope="row"), tags.td(value)) for name, value in facts.items()
    )
    pages = {"history": "history"} if status.history else {}
    if status.worker_state.cache:
        pages["images"] = "images"
    links = (
        tags.li(tags.a(say(f"status.link.{name}"), href=url)) for name, url in {**pages, **_LINKS}.items()
    )
    part = section("mirror", say("status.mirror"))
    part(tags.div(tags.table(tags.tbody([*rows]), class_="facts"), class_="wide"))
    if status.worker_state.certificates:
        part(tags.h3(say("status.certificates")), _certificates(status, say))
    return part(tags.ul([*links], class_="links"))


def _certificates(status: Status, say: Language) -> Tag:
    rows = (
        tags.tr(
            tags.th(tags.code(each.file), scope="row"),
            tags.td(
                describe_expiry(each, status.now, say),
                class_="bad" if each.expires - status.now < 7 * 86_400 else "",
            ),
        )
        for each in status.worker_state.certificates
    )
    return table((say("status.column.file"), say("status.column.expires")), rows, "facts")
