"""The page that tells a person of an error, of which programs are told in JSON."""

from __future__ import annotations

from twisted.web.template import Tag, flattenString, tags

from ...headers import lines
from ...http.server_request import ServerRequest
from ...oci.errors import RegistryError
from .page import (
    ENGLISH,
    HTML,
    JSON,
    LANGUAGES,
    PAGE,
    Language,
    language_for,
    negotiate_media_type,
    render_page,
)


def refuse_with_page(request: ServerRequest, error: RegistryError) -> None:
    """Write an error as a page, or in JSON for a client that prefers it."""
    if negotiate_media_type(lines(request.requestHeaders, "Accept"), JSON, HTML) == JSON:
        request.refuse(error)
        return
    try:
        say = language_for(request)
    except RegistryError:  # this may be the error: a query that cannot be parsed
        say = LANGUAGES[ENGLISH]
    request.setHeader("Vary", "Accept, Accept-Language")
    request.setHeader("Content-Security-Policy", PAGE.policy)
    request.setHeader("Cache-Control", "no-store")
    document = flattenString(None, _render(error, say))
    document.addCallback(lambda body: request.refuse(error, b"<!DOCTYPE html>\n" + body))
    document.addErrback(request.processingFailed)
    document.addErrback(lambda _: None)


def _render(error: RegistryError, say: Language) -> Tag:
    key = f"error.{error.status}"
    title = say(key if key in say.words else "error")
    home = tags.p(tags.a(say("home"), href="/"))
    main = Tag("main")(tags.p(str(error), class_="lead"), home)
    return render_page(title, say, tags.header(tags.h1(title)), main)
