"""The status of the mirror, of all of its processes together."""

from __future__ import annotations

import json
from typing import Protocol

from attrs import define, field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.web.template import Tag, flattenString

from ...headers import first
from ...http.server_request import ServerRequest
from ...status.status_values import WorkerState
from ..events import NextEvent
from ..pages.page import Language, language_for
from ..readiness import ReadinessState
from .history_section import HistorySource, HistorySummary
from .status_page import render_parts

_STATE_TTL = 10.0
"""Seconds for which the result of a store check is reused: the page is refreshed every second."""


@frozen
class Status:
    """Everything that the status page shows.

    :ivar now: in seconds since the epoch.
    :ivar history: None if the mirror keeps no history.
    :ivar started: when the mirror started.
    """

    now: float
    state: ReadinessState
    worker_state: WorkerState
    history: HistorySummary | None
    version: str
    started: float


class StatusSource(Protocol):
    """The state of the mirror, from one process or several."""

    async def state(self) -> ReadinessState: ...

    async def worker_state(self) -> WorkerState: ...


class StatusOverview:
    """Collects the status from the processes and from the history."""

    def __init__(
        self,
        source: StatusSource,
        history: HistorySource | None,
        version: str,
        started: float,
        clock: IReactorTime,
    ) -> None:
        self._source = source
        self._history = history
        self._version = version
        self._clock = clock
        self._started = started
        self._state: tuple[float, ReadinessState] | None = None

    async def status(self) -> Status:
        return Status(
            self._clock.seconds(),
            await self._readiness(),
            await self._source.worker_state(),
            await self._history.summary() if self._history else None,
            self._version,
            self._started,
        )

    async def _readiness(self) -> ReadinessState:
        now = self._clock.seconds()
        if self._state is None or not 0 <= now - self._state[0] < _STATE_TTL:
            self._state = now, await self._source.state()
        return self._state[1]


_SILENCE = 4
"""Looks without a change after which an empty event is sent."""


class StatusEvents:
    """Makes the events of each viewer: a JSON object of HTML by the selectors of the parts."""

    def __init__(self, overview: StatusOverview) -> None:
        self._overview = overview

    def subscribe(self, request: ServerRequest) -> NextEvent:
        """Return the function that makes a viewer's next event.

        :raises RegistryError: when the query cannot be parsed.
        """
        say, host = language_for(request), first(request.requestHeaders, "Host") or ""
        return _Viewer(self._overview, host, say).next_event


@define
class _Viewer:
    """Remembers what a viewer was sent."""

    _overview: StatusOverview
    _host: str
    _say: Language
    _shown: dict[str, str] = field(factory=dict)
    _unchanged: int = 0

    async def next_event(self) -> str | None:
        """Return the parts that changed; if none did, sometimes an empty event, which tells the page so."""
        parts = render_parts(await self._overview.status(), self._host, self._say)
        rendered = {selector: await _flatten(part) for selector, part in parts.items()}
        changed = {selector: html for selector, html in rendered.items() if self._shown.get(selector) != html}
        self._shown = rendered
        self._unchanged = 0 if changed else self._unchanged + 1
        return json.dumps(changed) if changed or self._unchanged % _SILENCE == 0 else None


async def _flatten(part: Tag) -> str:
    html: bytes = await flattenString(None, part)
    return html.decode()
