"""The status as a response: a page for people, text for a terminal, JSON for programs."""

from __future__ import annotations

from ...headers import first, lines
from ...oci.errors import RegistryError
from ..exchange import Request
from ..pages.offers import media_type
from ..pages.sent import HTML, JSON, TEXT, language_for, send, send_document
from ..respond import refuse
from .document import LOOK, document
from .overview import Status
from .plain import as_json, text


def tell_page(status: Status, request: Request) -> None:
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
        send_document(document(status, host, say), request, LOOK.policy)


def tell_json(status: Status, request: Request) -> None:
    """For programs."""
    send(as_json(status).encode(), request, JSON)
