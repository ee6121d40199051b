"""The resources of the pages: ``/``, ``/client/``, ``/pulls``, ``/setup/``, and unknown host names."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import Resource
from twisted.web.template import Tag, tags

from ...client_config.clients import CLIENTS, SETUP_CLIENTS, render_setup_script
from ...client_config.snippet import MirrorAddress
from ...http.server_request import ServerRequest, parse_query
from ...oci.errors import Denied, RegistryError, Unsupported
from ...system.networks import ClientAddress, normalize_host
from ..events import EventStream, NextEvent
from ..respond import RefusalResource, refuse, render_or_refuse
from .home import ASSETS, HomePageView, list_pulls, render_home, render_json, render_text
from .own_pulls import SHOWN, ClientTest, PullFinder, render_pulls, render_test
from .page import (
    ENGLISH,
    HTML,
    JSON,
    LANGUAGES,
    TEXT,
    Language,
    flatten,
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
class PageContext:
    """The collaborators of the pages.

    :ivar find_mirror: returns the mirror's address for a scheme and a host.
    :ivar find_setup: returns it for scripts that people run as root, by names of the settings alone.
    """

    find_mirror: Callable[[str, str], MirrorAddress]
    find_setup: Callable[[str, str], MirrorAddress]
    pulls: PullFinder
    clock: IReactorTime

    def mirror(self, client: ClientAddress) -> MirrorAddress:
        """Return the mirror's address as this client reaches it."""
        return self.find_mirror(client.scheme, client.host)

    def setup(self, client: ClientAddress) -> MirrorAddress | None:
        """Return the mirror's address for this client's setup scripts.

        None if it may get none: without TLS, others could change on the way what its user runs as root.
        """
        is_local = client.address is not None and client.address.is_loopback
        return self.find_setup(client.scheme, client.host) if client.scheme == "https" or is_local else None

    async def view(
        self, request: ServerRequest, registry: str | None = None, limit: int = SHOWN
    ) -> HomePageView:
        """Return the mirror as the client of a request sees it.

        :param registry: the registry of a virtual host, by its path; None for the mirror's own host.
        """
        client, query = requesting_client(request), dict(parse_query(request))
        mirror = self.mirror(client)
        named = next((each for each in mirror.registries if each.path == registry), None)
        found = await self.pulls.find(client, limit=limit)
        test = ClientTest.parse(query.get("test", ""), client, self.clock.seconds()).with_result(found)
        return HomePageView(mirror, named, self.setup(client), client, found, test, query.get("client", ""))


class PageFactory:
    """Creates the page resources of a mirror's hosts."""

    def __init__(self, context: PageContext) -> None:
        self._context = context
        self._events = EventStream(partial(_Viewer.subscribe, context), context.clock)

    def resources(self, registry: str | None = None) -> dict[str, Resource]:
        """Return the page resources of a host, by the first segment of their path.

        :param registry: the registry of a virtual host, by its path; None for the mirror's own host.
        """
        context = self._context
        return {
            "": _HomePage(context, registry),
            "client": _ClientConfigResource(context),
            "pulls": _PullList(context, self._events),
            "setup": _SetupScript(context),
        }


class _HomePage(Resource):
    """``/``: the mirror, the configuration of clients, and the client's own pulls."""

    def __init__(self, context: PageContext, registry: str | None) -> None:
        super().__init__()
        self._context = context
        self._registry = registry

    def getChild(self, path: bytes, request: ServerRequest) -> Resource:
        """Answer 404: ``//`` is another path."""
        return RefusalResource(Unsupported(status=404))

    def render_GET(self, request: ServerRequest) -> int:
        return render_or_refuse(request, self._render(request))

    def _begin_test(self, request: ServerRequest, say: Language) -> None:
        """Redirect to an address with the time from which pulls count."""
        request.setResponseCode(303)
        began = int(self._context.clock.seconds())
        request.setHeader("Location", f"/?test={began}&lang={say.code}#test")
        send(b"", request)

    async def _render(self, request: ServerRequest) -> None:
        say = language_for(request)
        if dict(parse_query(request)).get("test") == "":
            self._begin_test(request, say)
            return
        view = await self._context.view(request, self._registry)
        request.setHeader("Vary", "Accept, Accept-Language")
        kind = negotiate_media_type(request.fields.get("accept", ()), TEXT, HTML, JSON)
        if kind == JSON:
            send(render_json(view).encode(), request, JSON)
        elif kind == TEXT:
            send(render_text(view, say).encode(), request)
        else:
            send_document(render_home(view, say), request, ASSETS.policy)


class _PullList(Resource):
    """``/pulls``: the client's own pulls as text; with ``?latest`` only the time of their last byte."""

    def __init__(self, context: PageContext, events: EventStream) -> None:
        super().__init__()
        self._context = context
        self.putChild(b"events", events)

    def getChild(self, path: bytes, request: ServerRequest) -> Resource:
        return RefusalResource(Unsupported(status=404))

    def render_GET(self, request: ServerRequest) -> int:
        return render_or_refuse(request, self._render(request))

    async def _render(self, request: ServerRequest) -> None:
        say = language_for(request)
        view = await self._context.view(request, limit=100)
        if view.pulls.unknown:
            raise Unsupported(LANGUAGES[ENGLISH](view.pulls.unknown), status=404)
        latest = max((each.began + each.seconds for each in view.pulls.pulls), default=0.0)
        wants_time = "latest" in dict(parse_query(request))
        lines = [f"{latest:.3f}"] if wants_time else list_pulls(view, say)
        send("".join(f"{line}\n" for line in lines).encode(), request)


class _Viewer:
    """The live parts of one open page."""

    def __init__(self, context: PageContext, request: ServerRequest) -> None:
        self._context = context
        self._request = request
        self._say = language_for(request)
        self._sent = ""

    @classmethod
    def subscribe(cls, context: PageContext, request: ServerRequest) -> NextEvent:
        return cls(context, request).next_event

    async def next_event(self) -> str | None:
        """Return the parts as JSON if they changed."""
        view, say = await self._context.view(self._request), self._say
        event = json.dumps(
            {
                "pulls": await flatten(render_pulls(view.pulls, view.client.address, view.now, say)),
                "test": await flatten(render_test(view.test, view.mirror.url, view.trials, say)),
            }
        )
        if event == self._sent:
            return None
        self._sent = event
        return event


class _SetupScript(Resource):
    """``/setup/NAME``: a shell script that configures a client on its own machine."""

    def __init__(self, context: PageContext, name: str = "") -> None:
        super().__init__()
        self._context = context
        self._name = name

    def getChild(self, path: bytes, request: ServerRequest) -> Resource:
        return _SetupScript(self._context, f"{self._name}/{path.decode('ascii', 'replace')}".lstrip("/"))

    def render_GET(self, request: ServerRequest) -> int:
        name = self._name
        if name not in SETUP_CLIENTS:
            known = ", ".join(SETUP_CLIENTS)
            return refuse(request, Unsupported(f"unknown client; expected one of: {known}", status=404))
        mirror = self._context.setup(requesting_client(request))
        if mirror is None:
            return refuse(
                request,
                Denied(
                    "setup scripts are run as root, so they are served only by https and to the mirror's own"
                    f" machine; /client/{name} has the lines to add by hand"
                ),
            )
        return send(render_setup_script(name, mirror).encode(), request)


class _ClientConfigResource(Resource):
    """``/client/NAME``: a client's configuration, ready to be written to its file."""

    def __init__(self, context: PageContext, path: tuple[str, ...] = ()) -> None:
        super().__init__()
        self._context = context
        self._path = path

    def getChild(self, path: bytes, request: ServerRequest) -> Resource:
        if len(self._path) == 2:
            return RefusalResource(_missing())
        return _ClientConfigResource(self._context, (*self._path, path.decode("ascii", "replace")))

    def render_GET(self, request: ServerRequest) -> int:
        """Send the configuration below a comment that names its file."""
        name, snippet_name = (*self._path, "", "")[:2]
        client = CLIENTS.get(name)
        snippet = (
            client.snippet(self._context.mirror(requesting_client(request)), snippet_name) if client else None
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
        accepted = negotiate_media_type(request.fields.get("accept", ()), JSON, HTML)
        if accepted == JSON or request.method not in (b"GET", b"HEAD") or b"/v2/" in request.path + b"/":
            return send(self._error(client, mirror), request, JSON)
        try:
            return send_document(_document(client, mirror, language_for(request)), request)
        except RegistryError:
            return send(self._error(client, mirror), request, JSON)

    def _error(self, client: ClientAddress, mirror: MirrorAddress) -> bytes:
        error = Unsupported(f"{_describe(client)}; {_advise(client, mirror)}")
        hosts = [mirror.host, *(each.host for each in mirror.registries if each.host)]
        return json.dumps({**json.loads(error.body()), "hosts": hosts}, indent=4).encode()


def _describe(client: ClientAddress) -> str:
    host = f"the host {client.host}" if client.host else "a host without a name"
    return f"this mirror does not serve {host}"


def _advise(client: ClientAddress, mirror: MirrorAddress) -> str:
    others = f"use the mirror's IP address, {mirror.host} or another of 'hosts'"
    if not client.host:
        return others
    name = normalize_host(client.host)
    return f"{others}, or ask the operator to add {name} to the setting 'names', or to set 'domain'"


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
