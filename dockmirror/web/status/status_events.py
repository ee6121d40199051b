"""The parts of the status page that changed, as server-sent events."""

from __future__ import annotations

import json

from twisted.web.template import Tag, flattenString

from ...headers import first
from ...http.server_request import ServerRequest
from ..events import NextEvent
from ..pages.page import Language, language_for
from .overview import StatusOverview
from .status_page import render_parts


class StatusEvents:
    """Makes the events of each viewer: a JSON object of HTML by the selectors of the parts."""

    def __init__(self, overview: StatusOverview) -> None:
        self._overview = overview

    def subscribe(self, request: ServerRequest) -> NextEvent:
        """Return the function that makes a viewer's next event.

        :raises RegistryError: when the query cannot be parsed.
        """
        say, host = language_for(request), first(request.requestHeaders, "Host") or ""
        shown: dict[str, str] = {}

        async def next_event() -> str | None:
            parts = await self._render(host, say)
            changed = {selector: html for selector, html in parts.items() if shown.get(selector) != html}
            shown.update(changed)
            return json.dumps(changed) if changed else None

        return next_event

    async def _render(self, host: str, say: Language) -> dict[str, str]:
        parts = render_parts(await self._overview.status(), host, say)
        return {selector: await _flatten(part) for selector, part in parts.items()}


async def _flatten(part: Tag) -> str:
    html: bytes = await flattenString(None, part)
    return html.decode()
