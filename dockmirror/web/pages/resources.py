"""The home page at ``/``, and a configuration for each client at ``/client/``."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import Resource

from ...client_config.clients import CLIENTS
from ...client_config.mirror_address import MirrorAddress
from ...headers import lines
from ...http.access import ClientAddress
from ...http.server_request import ServerRequest
from ...oci.errors import RegistryError, Unsupported
from ..filter import RefusalResource
from ..recent_requests import RecentRequests
from ..respond import refuse
from .home import render_home
from .home_text import render_json, render_text
from .home_view import HomePageView
from .send_page import (
    HTML,
    JSON,
    TEXT,
    language_for,
    negotiate_media_type,
    requesting_client,
    send,
    send_document,
)


@frozen
class PageFactory:
    """Creates the page resources of a mirror's hosts.

    :ivar find_mirror: returns the mirror's address for a scheme and a host.
    """

    find_mirror: Callable[[str, str], MirrorAddress]
    recent: RecentRequests
    clock: IReactorTime

    def resources(self, registry: str | None = None) -> dict[str, Resource]:
        """Return the page resources of a host, by the first segment of their path.

        :param registry: the registry of a virtual host, by its path; None for the mirror's own host.
        """
        return {"": _HomePage(self, registry), "client": _ClientConfigResource(self)}

    def mirror(self, client: ClientAddress) -> MirrorAddress:
        """Return the mirror's address as this client reaches it."""
        return self.find_mirror(client.scheme, client.host)


class _HomePage(Resource):
    """``/``: the mirror, the configuration of clients, and the client's recent requests."""

    def __init__(self, pages: PageFactory, registry: str | None) -> None:
        super().__init__()
        self._pages = pages
        self._registry = registry

    def getChild(self, path: bytes, request: ServerRequest) -> Resource:
        """Answer 404: ``//`` is another path."""
        return RefusalResource(Unsupported(status=404))

    def render_GET(self, request: ServerRequest) -> int:
        try:
            say = language_for(request)
        except RegistryError as error:
            return refuse(request, error)
        view = self._view(request)
        request.setHeader("Vary", "Accept, Accept-Language")
        kind = negotiate_media_type(lines(request.requestHeaders, "Accept"), TEXT, HTML, JSON)
        if kind == JSON:
            return send(render_json(view).encode(), request, JSON)
        if kind == TEXT:
            return send(render_text(view, say).encode(), request)
        return send_document(render_home(view, say), request)

    def _view(self, request: ServerRequest) -> HomePageView:
        client = requesting_client(request)
        mirror = self._pages.mirror(client)
        registry = next((each for each in mirror.registries if each.path == self._registry), None)
        requests = self._pages.recent.list_for(client)
        return HomePageView(mirror, registry, client, requests, self._pages.clock.seconds())


class _ClientConfigResource(Resource):
    """``/client/NAME``: a client's configuration, ready to be written to its file."""

    def __init__(self, pages: PageFactory, path: tuple[str, ...] = ()) -> None:
        super().__init__()
        self._pages = pages
        self._path = path

    def getChild(self, path: bytes, request: ServerRequest) -> Resource:
        if len(self._path) == 2:
            return RefusalResource(_missing())
        return _ClientConfigResource(self._pages, (*self._path, path.decode("ascii", "replace")))

    def render_GET(self, request: ServerRequest) -> int:
        """Send the configuration below a comment that names its file."""
        name, snippet_name = (*self._path, "", "")[:2]
        client = CLIENTS.get(name)
        snippet = (
            client.snippet(self._pages.mirror(requesting_client(request)), snippet_name) if client else None
        )
        if client is None or snippet is None:
            return refuse(request, _missing())
        return send(snippet.commented(client.after).encode(), request)


def _missing() -> Unsupported:
    return Unsupported(f"unknown client; expected one of: {', '.join(CLIENTS)}", status=404)
