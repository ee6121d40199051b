"""The parts of the status page that changed, as server-sent events."""

from __future__ import annotations

import json

from attrs import define, field
from twisted.web.template import Tag, flattenString

from ...headers import first
from ...http.server_request import ServerRequest
from ..events import NextEvent
from ..pages.page import Language, language_for
from .overview import StatusOverview
from .status_page import render_parts

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
