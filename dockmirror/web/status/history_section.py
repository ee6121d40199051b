"""The sections of the status page out of the history: traffic, running pulls, clients and images."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.web.template import Tag, tags

from ...history.pulls import Pull, PullSums
from ..pages.own_pulls import name_image
from ..pages.page import Language, inline_code, section, table
from .charts import Step, make_bars, render_chart
from .history_summary import DAYS, HOURS, WEEKS, HistorySummary
from .overview import Status
from .status_text import SUM_COLUMNS, describe_running, format_sums

_STEPS: Sequence[tuple[Step, int]] = (("hour", HOURS), ("day", DAYS), ("week", WEEKS))


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
    rows = (render_row(each.key or say("status.unnamed"), format_sums(each), columns) for each in sums)
    return part(table(columns, rows, "numbers"))


def _available(part: Tag, history: HistorySummary | None, say: Language) -> HistorySummary | None:
    """Return the history, or None after saying in the section why there is none."""
    if history is not None and not history.error:
        return history
    part(tags.p(inline_code(history.error if history else say("status.no_history")), class_="none"))
    return None


def render_row(name: str, numbers: Sequence[str], columns: Sequence[str]) -> Tag:
    """Return a row of numbers, each labelled for narrow screens without a table head."""
    cells = (tags.td(each, **{"data-of": of}) for each, of in zip(numbers, columns[1:], strict=True))
    return tags.tr(tags.th(tags.code(name), scope="row"), [*cells])
