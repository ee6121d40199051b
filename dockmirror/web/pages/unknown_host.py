"""The answer for host names that are not the mirror's: 404 and the names that are."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from twisted.web.resource import Resource
from twisted.web.template import Tag, tags

from ...client_config.mirror_address import MirrorAddress
from ...headers import lines
from ...http.access import ClientAddress
from ...http.server_request import ServerRequest
from ...oci.errors import RegistryError, Unsupported
from ...system.networks import normalize_host
from .languages import Language
from .page import inline_code, render_page, table
from .send_page import HTML, JSON, language_for, negotiate_media_type, requesting_client, send, send_document


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
    for host, what in [(mirror.host, say("unknown.every")), *hosts]:
        link = tags.a(host, href=f"{mirror.scheme}://{host}/")
        yield tags.tr(tags.th(link, scope="row"), tags.td(what))
