"""The status as a response: a page for people, JSON for programs."""

from __future__ import annotations

from ...headers import first, lines
from ...oci.errors import RegistryError
from ..exchange import Request
from ..pages.offers import media_type
from ..pages.sent import HTML, JSON, language_for, send, send_document
from ..respond import refuse
from .document import LOOK, document
from .overview import Status
from .plain import as_json


def tell_page(status: Status, request: Request) -> None:
    """As a browser has it, in its language; JSON to who would rather have that."""
    request.setHeader("Vary", "Accept, Accept-Language")
    if media_type(lines(request.requestHeaders, "Accept"), HTML, JSON) == JSON:
        tell_json(status, request)
        return
    try:
        say = language_for(request)
    except RegistryError as error:
        refuse(request, error)
        return
    send_document(document(status, first(request.requestHeaders, "Host") or "", say), request, LOOK.policy)


def tell_json(status: Status, request: Request) -> None:
    """For programs."""
    send(as_json(status).encode(), request, JSON)
