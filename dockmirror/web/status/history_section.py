"""The sections of the status page out of the history: traffic, running pulls, clients and images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from attrs import astuple, evolve, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.web.template import Tag, tags

from ...concurrency.caching import SingleFlight
from ...history.pulls import HistoryError, HistoryReader, Pull, PullFilter, PullSums
from ...store.threads import RunInThread
from ..pages.own_pulls import name_image
from ..pages.page import Language, inline_code, section, table
from .charts import Step, make_bars, render_chart
from .overview import Status
from .status_text import SUM_COLUMNS, describe_running, format_sums

DAY, WEEK = 86_400, 7 * 86_400
HOURS, DAYS, WEEKS = 24, 30, 26
"""Bars of the charts."""
_TTL = 10.0
"""Seconds for which sums are reused; the running pulls are read anew each time."""
_MOST_RUNNING = 30
_MOST_NAMES = 10


@frozen
class HistorySummary:
    """The figures of the history.

    :ivar week: the sums of the last seven days by registry; ``clients`` and ``images`` are the largest ones.
    :ivar running: the pulls under way, newest first.
    :ivar error: a sentence that says why the history cannot be read; empty if it can.
    """

    week: Sequence[PullSums] = ()
    clients: Sequence[PullSums] = ()
    images: Sequence[PullSums] = ()
    hours: Sequence[PullSums] = ()
    days: Sequence[PullSums] = ()
    running: Sequence[Pull] = ()
    error: str = ""

    @property
    def total(self) -> PullSums:
        """The sums of the last seven days."""
        return add_sums("", self.week)


class HistorySource:
    """Reads the summary in threads; all viewers share what was read."""

    def __init__(self, reader: HistoryReader, in_thread: RunInThread, clock: IReactorTime) -> None:
        self._reader = reader
        self._in_thread = in_thread
        self._clock = clock
        self._flights: SingleFlight[None, HistorySummary] = SingleFlight()
        self._sums: tuple[float, HistorySummary] | None = None

    async def summary(self) -> HistorySummary:
        return await self._flights.get(None, self._read)

    async def _read(self) -> HistorySummary:
        now = self._clock.seconds()
        running = PullFilter(outcome="running")
        try:
            if self._sums is None or not 0 <= now - self._sums[0] < _TTL:
                self._sums = now, await self._in_thread(partial(_read_sums, self._reader, now))
            pulls = await self._in_thread(partial(self._reader.pulls, running, _MOST_RUNNING))
        except HistoryError as error:
            return HistorySummary(error=str(error))
        return evolve(self._sums[1], running=pulls)


def _read_sums(reader: HistoryReader, now: float) -> HistorySummary:
    week = PullFilter(since=now - WEEK)
    return HistorySummary(
        reader.sums("registry", week),
        reader.sums("client", week, _MOST_NAMES),
        reader.sums("repository", week, _MOST_NAMES),
        reader.sums("hour", PullFilter(since=now - HOURS * 3600)),
        reader.sums("day", PullFilter(since=now - WEEKS * WEEK)),
    )


def add_sums(key: str, sums: Iterable[PullSums]) -> PullSums:
    """Return the total of sums under a new key."""
    rows = [(0, 0, 0, 0, 0, 0, 0.0, 0.0), *(astuple(each)[1:] for each in sums)]
    return PullSums(key, *(sum(column) for column in zip(*rows, strict=True)))


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
