"""Mirrors that are the upstreams of other mirrors, in one process, with real bytes between them."""

# mypy: allow-untyped-calls

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.task import Clock

from dockmirror.http.server import HttpSite
from dockmirror.interfaces import Answer
from dockmirror.middleware.token_registry import TokenRegistry
from dockmirror.oci.request import RegistryRequest
from dockmirror.oci.token import TokenRequest
from dockmirror.system.networks import NetworkAccess
from dockmirror.web.respond import NetworkFilter
from dockmirror.web.site import RegistryHost

from .fakes import Reply, Seen, Server, World
from .house import Answer as Received
from .house import Connection
from .pullthrough.mirrors import Mirror
from .stacks import upstream

_OF_THE_CONNECTION = {"connection", "host", "content-length", "transfer-encoding"}


class Served(Protocol):
    """A mirror that clients can connect to."""

    @property
    def world(self) -> World:
        """The servers that it asks."""

    @property
    def site(self) -> Any:
        """The site that listens."""


def serve(mirror: Served, peer: str = "192.168.1.1") -> Server:
    """Return a server that passes each request on to a mirror, on a connection of its own.

    :param peer: the address at which the mirror sees its client.
    """

    def answer(seen: Seen) -> Reply:
        fields = [(k, v) for k, values in seen.headers.items() for v in values if k not in _OF_THE_CONNECTION]
        head = [f"{key}: {value}" for key, value in fields]
        if seen.body:
            head.append(f"Content-Length: {len(seen.body)}")
        path = seen.url.partition(seen.host)[2]
        connection = Connection(mirror, peer, seen.url.startswith("https:"))
        connection.ask(seen.method, seen.host, path, *head, body=seen.body)
        given = connection.answer
        headers = tuple((k, v) for k, v in given.headers if k not in {"connection", "transfer-encoding"})
        return Reply(given.status, given.body, headers)

    return answer


class _HttpOrigin:
    """An upstream of a cache that is asked over HTTP."""

    def __init__(self, world: World, clock: Clock, url: str) -> None:
        self._upstream = upstream(world.agent, clock, url, realms=())
        self.anonymous = TokenRegistry(self._upstream, clock)

    async def fetch(self, request: RegistryRequest) -> Answer:
        return await self._upstream.fetch(request)

    async def token(self, request: TokenRequest) -> Answer:
        return await self._upstream.token(request)


class CachedMirror:
    """A mirror of one registry with a cache in memory, whose clients and upstream speak HTTP.

    :ivar host: the mirror's virtual host.
    """

    def __init__(self, name: str, clock: Clock, upstream_host: str, server: Server, tag_ttl: float) -> None:
        self.host = f"docker.{name}.example"
        self.world = World({upstream_host: server})
        self.cache = Mirror(
            _HttpOrigin(self.world, clock, f"https://{upstream_host}"), clock, tag_ttl=tag_ttl
        )
        host = RegistryHost(self.cache.registry, {}, tokens=self.cache.tokens)
        self.site = HttpSite(NetworkFilter(host, NetworkAccess()), clock)

    def ask(self, method: str, path: str, *headers: str) -> Received:
        """The answer to a request, on a connection of its own."""
        return Connection(self, "192.168.1.1", secure=True).ask(method, self.host, path, *headers).answer

    def asked(self) -> list[str]:
        """Return the methods and paths that the upstream was asked since the last call."""
        lines = [f"{seen.method} {seen.path}" for seen in self.world.seen]
        self.world.seen.clear()
        return lines
