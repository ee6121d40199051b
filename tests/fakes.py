"""The servers that the mirror asks, in memory: real bytes of HTTP reach them, through no socket."""

# mypy: allow-untyped-calls

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

from attrs import evolve, field, frozen
from treq.testing import RequestTraversalAgent
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IAgentEndpointFactory, IBodyProducer, IResponse
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

Pairs = tuple[tuple[str, str], ...]


@frozen
class Seen:
    """A request as it reached a server; names of headers in lower case."""

    method: str
    url: str
    headers: Mapping[str, list[str]]
    body: bytes

    @property
    def host(self) -> str:
        """The server that was meant, with its port where it has one of its own."""
        return urlsplit(self.url).netloc

    @property
    def path(self) -> str:
        """Without the query."""
        return urlsplit(self.url).path

    @property
    def query(self) -> Pairs:
        """The parameters, in order."""
        return tuple(parse_qsl(urlsplit(self.url).query, keep_blank_values=True))

    @property
    def form(self) -> Pairs:
        """The fields of the body."""
        return tuple(parse_qsl(self.body.decode(), keep_blank_values=True))

    def header(self, name: str) -> str | None:
        """All values of a header in one line; None where there is none."""
        return ", ".join(self.headers[name.lower()]) if name.lower() in self.headers else None

    @property
    def authorization(self) -> str | None:
        """The ``Authorization`` field."""
        return self.header("Authorization")


@frozen
class Reply:
    """A response of a server.

    :ivar status: 0 for nothing at all.
    :ivar told: whether ``Content-Length`` is set where the headers have none; without it the body is chunked.
    :ivar end: whether the response is completed, broken off after the body, or never goes on.
    """

    status: int = 200
    body: bytes = b""
    headers: Pairs = ()
    told: bool = True
    end: Literal["whole", "broken", "stalled"] = "whole"

    def having(self, *headers: tuple[str, str]) -> Reply:
        """The same with more headers."""
        return evolve(self, headers=(*self.headers, *headers))

    def cut(self, at: int, end: Literal["broken", "stalled"] = "broken") -> Reply:
        """The same, breaking off at a byte although all of them were announced."""
        length = ("Content-Length", str(len(self.body)))
        return evolve(self.having(length), body=self.body[:at], end=end)


ENDLESS = Reply(200, bytes(100_000)).cut(50, end="stalled")
SILENT = Reply(0, end="stalled")
DEAD = Reply(0, end="broken")
Server = Callable[[Seen], Reply]


class World(Resource):
    """Every server there is, and what reached them.

    :ivar servers: by host; what is not here cannot be resolved.
    :ivar seen: all requests, in order.
    :ivar abandoned: those whose asker left before it had the whole answer.
    """

    isLeaf = True

    def __init__(self, servers: Mapping[str, Server] | None = None) -> None:
        super().__init__()
        self.servers = dict(servers or {})
        self.seen: list[Seen] = []
        self.abandoned: list[Seen] = []
        self.agent = Network(self)
        self._scripted: dict[tuple[str, str], list[Reply]] = {}
        self._stalled: list[Any] = []

    def reply(self, host: str, path: str, *replies: Reply) -> None:
        """Has a server answer to a path with these in turn, the last one again and again."""
        self.servers.setdefault(host, _nothing)
        self._scripted[host, path] = list(replies)

    def asked(self, host: str) -> list[Seen]:
        """Return the requests to one server."""
        return [seen for seen in self.seen if seen.host == host]

    def go_on(self, data: bytes) -> None:
        """Sends the rest of the oldest response that stalled."""
        request = self._stalled.pop(0)
        request.write(data)
        request.finish()
        self.agent.flush()

    def render(self, request: Any) -> int:
        """Answers, and remembers that it was asked."""
        scheme = "https" if request.isSecure() else "http"
        host = request.getHeader("Host")
        headers = {key.decode().lower(): [value.decode() for value in values]
                   for key, values in request.requestHeaders.getAllRawHeaders()}  # fmt: skip
        seen = Seen(
            request.method.decode(),
            f"{scheme}://{host}{request.uri.decode()}",
            headers,
            request.content.read(),
        )
        self.seen.append(seen)
        request.notifyFinish().addErrback(lambda _: self.abandoned.append(seen))
        self._write(request, self._reply(seen))
        return NOT_DONE_YET

    def _reply(self, seen: Seen) -> Reply:
        scripted = self._scripted.get((seen.host, seen.path))
        if not scripted:
            return self.servers[seen.host](seen)
        return scripted.pop(0) if len(scripted) > 1 else scripted[0]

    def _write(self, request: Any, reply: Reply) -> None:
        request.defaultContentType = None
        if reply.status:
            request.setResponseCode(reply.status)
            for name, value in reply.headers:
                request.responseHeaders.addRawHeader(name, value)
            if reply.told and not request.responseHeaders.hasHeader("Content-Length"):
                request.setHeader("Content-Length", str(len(reply.body)))
            request.write(reply.body)
        if reply.end == "whole":
            request.finish()
        elif reply.end == "broken":
            request.channel.loseConnection()
        else:
            self._stalled.append(request)


def _nothing(_: Seen) -> Reply:
    return Reply(404)


@implementer(IAgent)
class Network:
    """Reaches the servers of a world.

    :ivar failing: how connecting fails, by host.
    """

    def __init__(self, world: World) -> None:
        self.failing: dict[str, Exception] = {}
        self._world = world
        self._agent = RequestTraversalAgent(world)

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        host = urlsplit(uri).netloc.decode()
        if host in self.failing:
            return fail(self.failing[host])
        if host not in self._world.servers:
            return fail(DNSLookupError())
        asked: Deferred[IResponse] = self._agent.request(method, uri, headers, bodyProducer)
        return asked

    def flush(self) -> None:
        """Moves all bytes that are on their way."""
        self._agent.flush()


@implementer(IAgentEndpointFactory, IStreamClientEndpoint)
@frozen
class Wire:
    """Connections whose other end the test itself is.

    :ivar pool: what keeps connections for the next request.
    :ivar transports: of each connection that was made; what was sent stands in it.
    """

    pool: HTTPConnectionPool | None = None
    transports: list[StringTransport] = field(factory=list)
    protocols: list[Any] = field(factory=list)

    @property
    def agent(self) -> IAgent:
        """An agent that uses these connections."""
        agent: IAgent = Agent.usingEndpointFactory(Clock(), self, self.pool)
        return agent

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        return self

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        protocol: Any = protocolFactory.buildProtocol(IPv4Address("TCP", "192.0.2.1", 443))
        self.transports.append(StringTransport(lenient=True))
        self.protocols.append(protocol)
        protocol.makeConnection(self.transports[-1])
        return succeed(protocol)

    def send(self, data: bytes, at: int = -1) -> None:
        """Answers on the newest connection, or on another."""
        self.protocols[at].dataReceived(data)

    def lose(self, reason: Exception) -> None:
        """Ends the newest connection."""
        self.protocols[-1].connectionLost(Failure(reason))
