"""Beside ``/v2/`` on every host: the page at ``/``, and ``/client/``, a configuration for each client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from twisted.web.template import flattenString

from ...clients.mirror import Mirror
from ...clients.table import CLIENTS
from ...headers import lines
from ...oci.errors import RegistryError, Unsupported
from ..access import Client
from ..before import Refusal
from ..exchange import Request
from ..query import parameters
from ..recent import Recent
from ..respond import refuse
from .document import POLICY, document
from .languages import ENGLISH, LANGUAGES, Language
from .offers import language, media_type
from .plain import as_json, text
from .shown import Shown

_HTML, _JSON, _TEXT = "text/html", "application/json", "text/plain"


@frozen
class Pages:
    """The pages of a mirror.

    :ivar reached: the mirror behind a scheme and a host.
    """

    reached: Callable[[str, str], Mirror]
    recent: Recent
    clock: IReactorTime

    def beside(self, registry: str | None = None) -> dict[str, Resource]:
        """What lies on a host, by the first part of its path.

        :param registry: the name in paths of the one whose virtual host it is.
        """
        return {"": _Page(self, registry), "client": _Clients(self)}

    def mirror(self, client: Client) -> Mirror:
        """The mirror as that client has reached it."""
        return self.reached(client.scheme, client.host)


class _Page(Resource):
    """``/``: what this host is, how clients are told of it, and what it has seen of who asks."""

    def __init__(self, pages: Pages, registry: str | None) -> None:
        super().__init__()
        self._pages = pages
        self._registry = registry

    def getChild(self, path: bytes, request: Request) -> Resource:
        """``//`` is another path."""
        return Refusal(Unsupported(status=404))

    def render_GET(self, request: Request) -> int:
        """The page, as a browser, a program or a terminal has it."""
        try:
            say = _language(request)
        except RegistryError as error:
            return refuse(request, error)
        shown = self._shown(request)
        request.setHeader("Vary", "Accept, Accept-Language")
        kind = media_type(lines(request.requestHeaders, "Accept"), _TEXT, _HTML, _JSON)
        if kind == _JSON:
            return _send(as_json(shown).encode(), request, _JSON)
        if kind == _TEXT:
            return _send(text(shown, say).encode(), request)
        request.setHeader("Content-Security-Policy", POLICY)
        flattening: Deferred[Any] = flattenString(request, document(shown, say))
        flattening.addCallback(lambda body: _send(b"<!DOCTYPE html>\n" + body, request, _HTML))
        flattening.addErrback(request.processingFailed)
        flattening.addErrback(lambda _: None)
        return NOT_DONE_YET

    def _shown(self, request: Request) -> Shown:
        client = _client(request)
        mirror = self._pages.mirror(client)
        registry = next((each for each in mirror.registries if each.path == self._registry), None)
        seen = self._pages.recent.of(client)
        return Shown(mirror, registry, client, seen, self._pages.clock.seconds())


class _Clients(Resource):
    """``/client/NAME``: what that client has to be told, ready to be written to its file."""

    def __init__(self, pages: Pages, path: tuple[str, ...] = ()) -> None:
        super().__init__()
        self._pages = pages
        self._path = path

    def getChild(self, path: bytes, request: Request) -> Resource:
        """One level down."""
        if len(self._path) == 2:
            return Refusal(_missing())
        return _Clients(self._pages, (*self._path, path.decode("ascii", "replace")))

    def render_GET(self, request: Request) -> int:
        """The configuration, below a comment that says where it goes."""
        name, snippet_name = (*self._path, "", "")[:2]
        client = CLIENTS.get(name)
        snippet = client.snippet(self._pages.mirror(_client(request)), snippet_name) if client else None
        if client is None or snippet is None:
            return refuse(request, _missing())
        return _send(snippet.commented(client.after).encode(), request)


def _client(request: Request) -> Client:
    assert request.admitted is not None, "the gate lies before every host"
    return request.admitted


def _missing() -> Unsupported:
    return Unsupported(f"expected the name of a client: {', '.join(CLIENTS)}", status=404)


def _language(request: Request) -> Language:
    """As it is asked for in the query, or else as the browser would have it."""
    asked = dict(parameters(request)).get("lang", "")
    preferred = language(lines(request.requestHeaders, "Accept-Language"), *LANGUAGES)
    return LANGUAGES.get(asked) or LANGUAGES.get(preferred) or LANGUAGES[ENGLISH]


def _send(body: bytes, request: Request, kind: str = _TEXT) -> int:
    request.setHeader("Content-Type", kind if kind == _JSON else f"{kind}; charset=utf-8")
    request.setHeader("Content-Length", str(len(body)))
    request.setHeader("Cache-Control", "no-store")
    request.setHeader("X-Content-Type-Options", "nosniff")
    request.setHeader("Referrer-Policy", "no-referrer")
    request.write(body)
    request.finish()
    return NOT_DONE_YET
