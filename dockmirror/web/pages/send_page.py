"""Send pages: negotiate their media type and language, and set their headers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.web.server import NOT_DONE_YET
from twisted.web.template import Tag, flattenString

from ...headers import lines
from ...http.access import ClientAddress
from ...http.server_request import ServerRequest
from ..query import parse_query
from .languages import ENGLISH, LANGUAGES, Language
from .page import PAGE

HTML, JSON, TEXT = "text/html", "application/json", "text/plain"


def requesting_client(request: ServerRequest) -> ClientAddress:
    assert request.admitted_client is not None, "the gate lies before every host"
    return request.admitted_client


def language_for(request: ServerRequest) -> Language:
    """Return the language that the query names, or else the one that the browser prefers.

    :raises RegistryError: when the query cannot be parsed.
    """
    asked = dict(parse_query(request)).get("lang", "")
    preferred = negotiate_language(lines(request.requestHeaders, "Accept-Language"), *LANGUAGES)
    return LANGUAGES.get(asked) or LANGUAGES.get(preferred) or LANGUAGES[ENGLISH]


def send(body: bytes, request: ServerRequest, kind: str = TEXT) -> int:
    """Send a complete body that is not to be cached."""
    request.setHeader("Content-Type", kind if kind == JSON else f"{kind}; charset=utf-8")
    request.setHeader("Content-Length", str(len(body)))
    request.setHeader("Cache-Control", "no-store")
    request.setHeader("X-Content-Type-Options", "nosniff")
    request.setHeader("Referrer-Policy", "no-referrer")
    request.write(body)
    request.finish()
    return NOT_DONE_YET


def send_document(document: Tag, request: ServerRequest, policy: str = PAGE.policy) -> int:
    """Send an HTML document with a content security policy."""
    request.setHeader("Content-Security-Policy", policy)
    flattening: Deferred[Any] = flattenString(request, document)
    flattening.addCallback(lambda body: send(b"<!DOCTYPE html>\n" + body, request, HTML))
    flattening.addErrback(request.processingFailed)
    flattening.addErrback(lambda _: None)
    return NOT_DONE_YET


def negotiate_media_type(accept: Sequence[str], default: str, *others: str) -> str:
    """Return the best media type for an ``Accept`` field (RFC 9110, 12.5).

    :param accept: the lines of ``Accept``.
    :param default: for clients without a preference; a type named explicitly wins over a range.
    """
    wanted = dict(_weighed(accept))
    named = {each: wanted[each] for each in (default, *others) if wanted.get(each)}
    return max(named, key=lambda each: named[each], default=default)


def negotiate_language(accept: Sequence[str], default: str, *others: str) -> str:
    """Return the best language for an ``Accept-Language`` field: ``zh-Hans-CN`` matches ``zh``.

    :param accept: the lines of ``Accept-Language``.
    """
    wanted: dict[str, float] = {}
    for tag, weight in _weighed(accept):
        primary = tag.partition("-")[0]
        wanted[primary] = max(weight, wanted.get(primary, 0.0))
    known = {each: wanted[each] for each in (default, *others) if wanted.get(each)}
    return max(known, key=lambda each: known[each], default=default)


def _weighed(lines: Sequence[str]) -> Iterator[tuple[str, float]]:
    for each in (each for line in lines for each in line.split(",")):
        value, *parameters = (part.strip().lower() for part in each.split(";"))
        weight = next((part.removeprefix("q=") for part in parameters if part.startswith("q=")), "1")
        try:
            yield value, min(max(float(weight), 0.0), 1.0)
        except ValueError:
            yield value, 0.0
