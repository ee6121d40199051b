"""The resources of the pages: ``/``, ``/client/``, and unknown host names."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import Resource
from twisted.web.template import Tag, tags

from ...client_config.clients import CLIENTS
from ...client_config.snippet import MirrorAddress
from ...headers import lines
from ...http.access import ClientAddress
from ...http.server_request import ServerRequest
from ...oci.errors import RegistryError, Unsupported
from ...system.networks import normalize_host
from ..filter import RefusalResource
from ..recent_requests import RecentRequests
from ..respond import refuse
from .home import HomePageView, render_home, render_json, render_text
from .page import (
    HTML,
    JSON,
    TEXT,
    Language,
    inline_code,
    language_for,
    negotiate_media_type,
    render_page,
    requesting_client,
    send,
    send_document,
    table,
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
        return send(snippet.with_comment(client.after).encode(), request)


def _missing() -> Unsupported:
    return Unsupported(f"unknown client; expected one of: {', '.join(CLIENTS)}", status=404)


class UnknownHost(Resource):
    """Answers 404 at every path: a page for browsers, and a JSON error with the hosts for programs.

    :param find_mirror: returns the mirror's address for a scheme and a host.
    """

    isLeaf = True

    def __init__(self, find_mirror: Callable[[str, str], MirrorAddress]) -> None:
        super().__init__()
        self._find_mirror = find_mirror

    def getChild(self, path: bytes, request: ServerRequest) -> Resource:
        return self

    def render(self, request: ServerRequest) -> int:
        """Send the error; a path below ``/v2/`` never gets a page, which a client could take for content."""
        request.setResponseCode(404)
        request.setHeader("Vary", "Accept, Accept-Language")
        client = requesting_client(request)
        request.reason = _describe(client)
        mirror = self._find_mirror(client.scheme, client.host)
        accepted = negotiate_media_type(lines(request.requestHeaders, "Accept"), JSON, HTML)
        if accepted == JSON or request.method not in (b"GET", b"HEAD") or b"/v2/" in request.path + b"/":
            return send(self._error(client, mirror), request, JSON)
        try:
            return send_document(_document(client, mirror, language_for(request)), request)
        except RegistryError:
            return send(self._error(client, mirror), request, JSON)

    def _error(self, client: ClientAddress, mirror: MirrorAddress) -> bytes:
        error = Unsupported(f"{_describe(client)}; use {mirror.host} or another of 'hosts'")
        hosts = [mirror.host, *(each.host for each in mirror.registries if each.host)]
        return json.dumps({**json.loads(error.body()), "hosts": hosts}, indent=4).encode()


def _describe(client: ClientAddress) -> str:
    host = f"the host {client.host}" if client.host else "a host without a name"
    return f"this mirror does not serve {host}"


def _document(client: ClientAddress, mirror: MirrorAddress, say: Language) -> Tag:
    title = say("unknown")
    header = tags.header(
        tags.p(title, class_="what"),
        tags.h1(client.host or "—"),
        tags.p(inline_code(say("unknown.lead")), class_="lead"),
    )
    names = (say("unknown.host"), say("unknown.registry"))
    main = Tag("main")(
        table(names, _rows(mirror, say), "registries"),
        tags.p(inline_code(say("unknown.why", host=normalize_host(client.host))), class_="note"),
    )
    return render_page(f"{client.host}: {title}", say, header, main)


def _rows(mirror: MirrorAddress, say: Language) -> Iterator[Tag]:
    hosts = [(each.host, each.path) for each in mirror.registries if each.host]
    for host, registry in [(mirror.host, say("unknown.every")), *hosts]:
        link = tags.a(host, href=f"{mirror.scheme}://{host}/")
        yield tags.tr(tags.th(link, scope="row"), tags.td(registry))
