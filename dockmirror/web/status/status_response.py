"""The status as a response: a page for people, text for a terminal, JSON for programs."""

from __future__ import annotations

from ...headers import first, lines
from ...http.server_request import ServerRequest
from ...oci.errors import RegistryError
from ..pages.content_negotiation import media_type
from ..pages.send_page import HTML, JSON, TEXT, language_for, send, send_document
from ..respond import refuse
from .overview import Status
from .status_page import LOOK, render_status
from .status_text import as_json, text


def tell_page(status: Status, request: ServerRequest) -> None:
    """As a browser, a program or a terminal has it, in the language of who asks."""
    try:
        say = language_for(request)
    except RegistryError as error:
        refuse(request, error)
        return
    request.setHeader("Vary", "Accept, Accept-Language")
    host = first(request.requestHeaders, "Host") or ""
    kind = media_type(lines(request.requestHeaders, "Accept"), TEXT, HTML, JSON)
    if kind == JSON:
        tell_json(status, request)
    elif kind == TEXT:
        send(text(status, host, say).encode(), request)
    else:
        send_document(render_status(status, host, say), request, LOOK.policy)


def tell_json(status: Status, request: ServerRequest) -> None:
    """For programs."""
    send(as_json(status).encode(), request, JSON)
