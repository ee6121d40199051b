"""The page that tells a person of an error, of which programs are told in JSON."""

from __future__ import annotations

from twisted.web.template import Tag, tags

from ...headers import lines
from ...http.server_request import ServerRequest
from ...oci.errors import RegistryError
from .page import HTML, JSON, Language, negotiate_media_type, render_page


def wants_page(request: ServerRequest) -> bool:
    """Return whether a browser asks for a page; a client of a registry takes for content what it is given."""
    is_registry = b"/v2/" in request.path + b"/"
    return (
        not is_registry and negotiate_media_type(lines(request.requestHeaders, "Accept"), JSON, HTML) == HTML
    )


def render_error(error: RegistryError, say: Language) -> Tag:
    key = f"error.{error.status}"
    title = say(key if key in say.words else "error")
    home = tags.p(tags.a(say("home"), href="/"))
    main = Tag("main")(tags.p(str(error), class_="lead"), home)
    return render_page(title, say, tags.header(tags.h1(title)), main)
