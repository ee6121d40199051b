"""Beside ``/v2/`` on every host: the page at ``/``, and ``/client/``, a configuration for each client."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import Resource

from ...clients.mirror import Mirror
from ...clients.table import CLIENTS
from ...headers import lines
from ...oci.errors import RegistryError, Unsupported
from ..access import Client
from ..before import Refusal
from ..exchange import Request
from ..recent import Recent
from ..respond import refuse
from .document import document
from .offers import media_type
from .plain import as_json, text
from .sent import HTML, JSON, TEXT, client_of, language_for, send, send_document
from .shown import Shown


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
            say = language_for(request)
        except RegistryError as error:
            return refuse(request, error)
        shown = self._shown(request)
        request.setHeader("Vary", "Accept, Accept-Language")
        kind = media_type(lines(request.requestHeaders, "Accept"), TEXT, HTML, JSON)
        if kind == JSON:
            return send(as_json(shown).encode(), request, JSON)
        if kind == TEXT:
            return send(text(shown, say).encode(), request)
        return send_document(document(shown, say), request)

    def _shown(self, request: Request) -> Shown:
        client = client_of(request)
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
        snippet = client.snippet(self._pages.mirror(client_of(request)), snippet_name) if client else None
        if client is None or snippet is None:
            return refuse(request, _missing())
        return send(snippet.commented(client.after).encode(), request)


def _missing() -> Unsupported:
    return Unsupported(f"expected the name of a client: {', '.join(CLIENTS)}", status=404)
