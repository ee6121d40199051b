"""Agents that wrap an agent: concurrency limit, circuit breaker, measurements, raw paths."""

# mypy: allow-untyped-calls

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from treq import content
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import (
    ConnectBindError,
    ConnectError,
    ConnectionDone,
    ConnectionLost,
    DNSLookupError,
    SSLError,
)
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.error import TimeoutError as ConnectTimedOut
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.web.client import HTTPConnectionPool
from twisted.web.iweb import IAgent, IResponse
from zope.interface.verify import verifyObject

from dockmirror.body.bodies import BytesBody
from dockmirror.metrics import Metrics
from dockmirror.oci.digest import Descriptor
from dockmirror.upstream.agents import (
    FIRST_DELAY,
    LONGEST_DELAY,
    AgentRequest,
    AgentWrapper,
    ConcurrencyLimit,
    HostCircuitBreaker,
    InstrumentedAgent,
    RawPathAgent,
    parse_quota,
)
from dockmirror.upstream.checked_endpoint import AddressRefused
from dockmirror.upstream.upload_client import RequestBodyProducer
from tests.fakes import DEAD, Reply, Wire, World
from tests.scraped import scraped
from tests.stacks import Outcome

TEN = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nX: y\r\n\r\n"
EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class OneServer:
    """A limited client of one server, which the test plays, and its first two requests.

    :ivar wire: its connections, one for each running request.
    """

    def __init__(self, limit: int = 1, method: bytes = b"GET") -> None:
        self.clock = Clock()
        self.wire = Wire(HTTPConnectionPool(self.clock))
        self.agent = ConcurrencyLimit(self.wire.agent, limit, self.clock, patience=30)
        self.first, self.second = self.request("a", method), self.request("b")

    def request(self, path: str, method: bytes = b"GET") -> Outcome:
        return Outcome(self.agent.request(method, b"http://r.example/" + path.encode()))

    def upload(self, path: str) -> Outcome:
        body = RequestBodyProducer(BytesBody(b"", Descriptor()), self.clock, (1, 1), print, print)
        return Outcome(self.agent.request(b"PUT", b"http://r.example/" + path.encode(), None, body))

    @property
    def received(self) -> list[str]:
        """The paths that the server was asked for, in order of the connections."""
        sent = b"".join(transport.value() for transport in self.wire.transports)
        return [line.split()[1].decode() for line in sent.splitlines() if b" HTTP/1.1" in line]


def test_requests_beyond_the_limit_wait_in_order() -> None:
    server = OneServer(2)
    responses = [server.first, server.second, server.request("c"), server.request("d")]
    assert server.received == ["/a", "/b"]
    server.wire.send(EMPTY, at=0)
    assert server.received == ["/a", "/c", "/b"], "the connection is used again"
    server.wire.send(EMPTY, at=1)
    assert server.received == ["/a", "/c", "/b", "/d"]
    assert [bool(response) for response in responses] == [True, True, False, False]
    assert len(server.wire.transports) == 2
    with pytest.raises(ValueError, match="tokens >= 1"):
        OneServer(0)


def test_uploads_take_no_place_of_other_requests() -> None:
    """They last as long as their clients take, and have a limit of their own."""
    server = OneServer()
    server.wire.send(EMPTY)
    server.wire.send(EMPTY)
    uploads = [server.upload("c"), server.upload("d")]
    server.request("e")
    assert sorted(server.received) == ["/a", "/b", "/c", "/e"]
    assert uploads == [[], []]


@pytest.mark.parametrize(
    ("method", "answer"), [(b"HEAD", TEN), (b"GET", EMPTY), (b"GET", b"HTTP/1.1 304 Not Modified\r\n\r\n")]
)
def test_a_response_without_a_body_ends_its_request(method: bytes, answer: bytes) -> None:
    """It makes no difference whether it is read."""
    server = OneServer(method=method)
    server.wire.send(answer)
    assert server.received == ["/a", "/b"]
    assert Outcome(content(server.first.get())) == [b""]


def test_a_request_runs_until_its_body_has_ended() -> None:
    """An unread one keeps it running; the next request uses its connection."""
    server = OneServer()
    verifyObject(IAgent, server.agent)
    server.wire.send(TEN + b"01234")
    assert verifyObject(IResponse, server.first.get())
    assert (server.first.get().code, server.first.get().length) == (200, 10)
    assert server.first.get().headers.getRawHeaders("X") == ["y"]
    server.wire.send(b"56789")
    assert server.received == ["/a"]
    assert Outcome(content(server.first.get())) == [b"0123456789"]
    assert server.received == ["/a", "/b"]
    server.wire.send(TEN + b"01234")
    reading = Outcome(content(server.second.get()))
    server.request("c")
    assert server.received == ["/a", "/b"]
    server.wire.send(b"56789")
    assert reading == [b"0123456789"]
    assert server.received == ["/a", "/b", "/c"]
    assert len(server.wire.transports) == 1


class _Leaving(Protocol):
    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()


@pytest.mark.parametrize("ending", ["invalid response", "broken body", "left body", "cancelled"])
@pytest.mark.parametrize("reason", [ConnectionDone(), ConnectionLost()])
def test_a_failure_ends_its_request(reason: Exception, ending: str) -> None:
    """A request that is cancelled while it waits is never sent."""
    server = OneServer()
    server.request("c")
    server.second.work.cancel()
    assert isinstance(server.second.error, CancelledError)
    if ending == "cancelled":
        server.first.work.cancel()
    elif ending == "invalid response":
        server.wire.send(b"nonsense\r\n\r\n")
    else:
        server.wire.send(TEN + b"01234")
        server.first.get().deliverBody(_Leaving() if ending == "left body" else Protocol())
    server.wire.lose(reason)
    assert server.received == ["/a", "/c"]


def test_a_request_waits_for_half_a_minute() -> None:
    """The error says what it waited for; a running request has no such limit."""
    server = OneServer()
    server.clock.advance(30)
    assert isinstance(server.second.error, ConnectTimedOut)
    reason = "waiting for one of the 1 concurrent requests to end took more than 30 s"
    assert reason in str(server.second.error)
    assert not server.first
    assert server.clock.getDelayedCalls() == []


class _RunningRequests(AgentWrapper):
    """An agent that responds on demand, and keeps the running requests."""

    def __init__(self) -> None:
        self.running: list[Deferred[Any]] = []

    def handle(self, request: AgentRequest) -> Deferred[Any]:
        self.running.append(Deferred(self.running.remove))
        return self.running[-1]


class _Response:
    """A response with a body of one piece."""

    length = 1

    def __init__(self, on_end: Any) -> None:
        self._on_end = on_end

    def deliverBody(self, protocol: Any) -> None:
        protocol.makeConnection(StringTransport())
        self._on_end()
        protocol.connectionLost(ConnectionDone())


@given(st.lists(st.tuples(st.sampled_from(["ask", "answer", "read", "fail", "cancel"]), st.integers(0, 9))))
def test_the_limit_holds_for_any_order_of_events(events: list[tuple[str, int]]) -> None:
    """As many requests run as may while some wait."""
    agent = _RunningRequests()
    limited = ConcurrencyLimit(agent, 3, Clock())
    requests: list[Outcome] = []
    unread: list[Any] = []
    for event, index in events:
        if event == "ask":
            requests.append(Outcome(limited.request(b"GET", b"http://r.example/")))
        elif event in ("answer", "fail") and agent.running:
            request = agent.running.pop(index % len(agent.running))
            if event == "fail":
                request.errback(ConnectionLost())
            else:
                unread.append(None)
                request.callback(_Response(unread.pop))
        elif event == "read" and (bodies := [r for r in requests if r and hasattr(r[0], "deliverBody")]):
            bodies[index % len(bodies)].pop().deliverBody(Protocol())
        elif event == "cancel" and requests:
            requests[index % len(requests)].work.cancel()
        waiting = len([r for r in requests if not r and not r.work.called]) - len(agent.running)
        running = len(agent.running) + len(unread)
        assert running <= 3
        assert running == 3 or waiting <= 0


REGISTRY, TOKENS = "registry.example", "auth.example"
DOWN = [Refused(), SSLError(), ConnectTimedOut(), DNSLookupError(), ConnectError()]


class TwoServers:
    """A client of two servers, which respond until told otherwise.

    :ivar failing: how connecting to a host fails.
    """

    def __init__(self) -> None:
        self.clock, self.world = Clock(), World({REGISTRY: _respond, TOKENS: _respond})
        self.failing = self.world.agent.failing
        self.agent = HostCircuitBreaker(self.world.agent, self.clock)

    def request(self, host: str = TOKENS) -> BaseException | int:
        """Return the status, or the error."""
        outcome = Outcome(self.agent.request(b"GET", f"https://{host}/x".encode()))
        self.world.agent.flush()
        return outcome.error if hasattr(outcome[0], "value") else int(outcome.get().code)


def _respond(_: object) -> Reply:
    return Reply(200)


@pytest.mark.parametrize("error", DOWN, ids=lambda error: type(error).__name__)
def test_the_circuit_opens_for_one_server_only(error: Exception) -> None:
    """It closes when the server responds again."""
    servers = TwoServers()
    assert verifyObject(IAgent, servers.agent)
    servers.failing[TOKENS] = error
    assert servers.request() is error
    del servers.failing[TOKENS]
    assert servers.request() is error
    assert servers.request(REGISTRY) == 200
    servers.clock.advance(FIRST_DELAY)
    assert servers.request() == 200


def test_each_failure_doubles_the_delay() -> None:
    """The longest is half a minute; a response resets it."""
    servers, lengths = TwoServers(), []
    for _ in range(7):
        servers.failing[TOKENS] = Refused()
        servers.request()
        servers.failing[TOKENS] = AddressRefused("it was asked")
        start = servers.clock.seconds()
        while isinstance(servers.request(), Refused):
            servers.clock.advance(0.5)
        lengths.append(servers.clock.seconds() - start)
    assert lengths == [FIRST_DELAY, 2, 4, 8, 16, LONGEST_DELAY, LONGEST_DELAY]
    for _ in range(2):
        servers.failing.clear()
        assert servers.request() == 200
        servers.failing[TOKENS] = Refused()
        servers.request()
        servers.clock.advance(FIRST_DELAY)


@pytest.mark.parametrize("error", [ConnectBindError(24, "too many files"), AddressRefused("private"), None])
def test_other_failures_do_not_open_the_circuit(error: Exception | None) -> None:
    """A lack of descriptors, an address that is not allowed, or a lost connection."""
    servers = TwoServers()
    if error is None:
        servers.world.servers[TOKENS] = lambda _: DEAD
    else:
        servers.failing[TOKENS] = error
    assert isinstance(servers.request(), Exception)
    servers.failing.clear()
    servers.world.servers[TOKENS] = _respond
    assert servers.request() == 200


HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nRateLimit-Limit: 100;w=21600\r\nRateLimit-Remaining: 7\r\n\r\n"
)


def test_a_response_is_measured() -> None:
    """Its seconds, the bytes of its body and its quota count for the upstream; a failure counts nothing."""
    clock, wire, metrics = Clock(), Wire(), Metrics(CollectorRegistry())
    quotas: list[tuple[int | None, int | None]] = []
    agent = InstrumentedAgent(wire.agent, ("docker", ""), metrics, clock, lambda *quota: quotas.append(quota))
    verifyObject(IAgent, agent)
    failing = Outcome(agent.request(b"GET", b"http://r.example/"))
    wire.lose(ConnectionError())
    assert failing.error
    response = Outcome(agent.request(b"GET", b"http://r.example/"))
    clock.advance(3)
    wire.send(HEAD % 10 + b"12345")
    verifyObject(IResponse, response.get())
    body = Outcome(content(response.get()))
    wire.send(b"67890")
    assert body.get() == b"1234567890"
    figures = {
        "received_bytes_total": 10, "upstream_seconds_sum": 3, "upstream_seconds_count": 1,
        "upstream_ratelimit_limit": 100, "upstream_ratelimit_remaining": 7,
    }  # fmt: skip
    found = {name: value for (name, labels), value in scraped(metrics.registry).items() if "docker" in labels}
    assert {name: found[f"dockmirror_{name}"] for name in figures} == figures
    assert quotas == [(100, 7)]


@pytest.mark.parametrize(
    ("quota", "number"),
    [
        ("100;w=21600", 100), ("0", 0), (" 5, 5;w=60", 5), ("", None), ("many", None), ("-1", None),
        ("1" * 13, None), ("\u0663", None),
    ],
)  # fmt: skip
def test_the_first_number_is_the_quota(quota: str, number: int | None) -> None:
    """Other values are ignored."""
    assert parse_quota(quota) == number


@pytest.mark.parametrize(
    "target",
    ["/", "/a", "//two//slashes/", "//host.example/a?b=//c", "/a;b?c=d&e", "/v2/x/blobs/sha256:0?ns=a"],
)
def test_a_path_is_sent_as_it_is_written(target: str) -> None:
    """Python's ``urlunparse`` has no part in it."""
    wire = Wire()
    RawPathAgent.usingEndpointFactory(Clock(), wire).request(b"GET", f"https://cdn.example{target}".encode())
    assert wire.transports[0].value().partition(b"\r\n")[0] == f"GET {target} HTTP/1.1".encode()
