"""Agents that wrap an agent: concurrency limit, circuit breaker, measurements, raw paths."""

# mypy: allow-untyped-calls

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from treq import content
from twisted.internet.defer import CancelledError, Deferred, succeed
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
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.web.client import URI, HTTPConnectionPool
from twisted.web.iweb import IAgent, IAgentEndpointFactory, IResponse
from zope.interface import implementer
from zope.interface.verify import verifyObject

from dockmirror.metrics import Metrics
from dockmirror.upstream.agents import (
    FIRST_DELAY,
    LONGEST_DELAY,
    ConcurrencyLimit,
    HostCircuitBreaker,
    InstrumentedAgent,
    RawPathAgent,
    parse_quota,
)
from dockmirror.upstream.checked_endpoint import AddressRefused
from tests.fakes import DEAD, Reply, Wire, World
from tests.scraped import scraped
from tests.stacks import Outcome

TEN = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nX: y\r\n\r\n"
EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class OneServer:
    """A client of one server, which the test plays; it may send one request at a time by default. :ivar wire:
    its connections, one for each running request.
    """

    def __init__(self, limit: int = 1) -> None:
        self.clock = Clock()
        self.wire = Wire(HTTPConnectionPool(self.clock))
        self.agent = ConcurrencyLimit(self.wire.agent, limit, self.clock, patience=30)

    def ask(self, path: str = "", method: bytes = b"GET") -> Outcome:
        """Send a request."""
        return Outcome(self.agent.request(method, b"http://r.example/" + path.encode()))

    @property
    def asked(self) -> list[str]:
        """The paths that the server was asked for, in order of the connections."""
        said = b"".join(transport.value() for transport in self.wire.transports)
        return [line.split()[1].decode() for line in said.splitlines() if b" HTTP/1.1" in line]


def test_a_limited_agent_is_an_agent() -> None:
    """Its responses are responses."""
    asker = OneServer()
    verifyObject(IAgent, asker.agent)
    response = asker.ask()
    asker.wire.send(TEN)
    assert verifyObject(IResponse, response.get())
    assert (response.get().code, response.get().length) == (200, 10)
    assert response.get().headers.getRawHeaders("X") == ["y"]


def test_requests_beyond_the_limit_wait_in_order() -> None:
    asker = OneServer(2)
    responses = [asker.ask(path) for path in "abcd"]
    assert asker.asked == ["/a", "/b"]
    asker.wire.send(EMPTY, at=0)
    assert asker.asked == ["/a", "/c", "/b"], "the connection is used again"
    asker.wire.send(EMPTY, at=1)
    assert asker.asked == ["/a", "/c", "/b", "/d"]
    assert [bool(response) for response in responses] == [True, True, False, False]
    assert len(asker.wire.transports) == 2


@pytest.mark.parametrize(
    ("method", "answer"), [(b"HEAD", TEN), (b"GET", EMPTY), (b"GET", b"HTTP/1.1 304 Not Modified\r\n\r\n")]
)
def test_a_response_without_a_body_ends_its_request(method: bytes, answer: bytes) -> None:
    """It makes no difference whether it is read."""
    asker = OneServer()
    response = asker.ask("a", method)
    asker.ask("b")
    asker.wire.send(answer)
    assert asker.asked == ["/a", "/b"]
    assert Outcome(content(response.get())) == [b""]


def test_a_request_runs_until_its_body_has_ended() -> None:
    """The next one uses its connection."""
    asker = OneServer()
    response = asker.ask("a")
    asker.ask("b")
    asker.wire.send(TEN + b"01234")
    reading = Outcome(content(response.get()))
    assert asker.asked == ["/a"]
    asker.wire.send(b"56789")
    assert reading == [b"0123456789"]
    assert asker.asked == ["/a", "/b"]
    assert len(asker.wire.transports) == 1


def test_an_unread_body_keeps_its_request_running() -> None:
    asker = OneServer()
    response = asker.ask("a")
    asker.ask("b")
    asker.wire.send(TEN + b"0123456789")
    assert asker.asked == ["/a"]
    assert Outcome(content(response.get())) == [b"0123456789"]
    assert asker.asked == ["/a", "/b"]


class _Leaving(Protocol):
    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()


@pytest.mark.parametrize("reason", [ConnectionDone(), ConnectionLost()])
def test_a_broken_body_ends_its_request(reason: Exception) -> None:
    """So does one that its reader leaves."""
    asker = OneServer()
    response = asker.ask("a")
    asker.ask("b")
    asker.wire.send(TEN + b"01234")
    response.get().deliverBody(_Leaving())
    assert asker.wire.transports[0].disconnecting
    asker.wire.lose(reason)
    assert asker.asked == ["/a", "/b"]


def test_a_failure_ends_its_request() -> None:
    asker = OneServer()
    response = asker.ask("a")
    asker.ask("b")
    asker.wire.send(b"nonsense\r\n\r\n")
    asker.wire.lose(ConnectionLost())
    assert isinstance(response.error, Exception)
    assert asker.asked == ["/a", "/b"]


def test_cancelling_ends_a_request() -> None:
    """One that is cancelled while it waits is never sent."""
    asker = OneServer()
    first, second, _ = (asker.ask(path) for path in "abc")
    second.work.cancel()
    assert isinstance(second.error, CancelledError)
    first.work.cancel()
    asker.wire.lose(ConnectionLost())
    assert asker.asked == ["/a", "/c"]


def test_a_request_waits_for_half_a_minute() -> None:
    """The error says what it waited for."""
    asker = OneServer()
    first = asker.ask("a")
    second = asker.ask("b")
    asker.clock.advance(30)
    assert isinstance(second.error, ConnectTimedOut)
    quota = "waiting for one of the 1 concurrent requests to end took more than 30 s"
    assert quota in str(second.error)
    assert not first, "what runs has no time to keep here"
    assert asker.clock.getDelayedCalls() == []


def test_a_limit_of_zero_is_invalid() -> None:
    with pytest.raises(ValueError, match="tokens >= 1"):
        OneServer(0)


@implementer(IAgent)
class _Counting:
    """An agent that responds on demand, and counts the running requests."""

    def __init__(self) -> None:
        self.running: list[Deferred[Any]] = []

    def request(self, *asked: object) -> Deferred[Any]:
        self.running.append(Deferred(self.running.remove))
        return self.running[-1]


class _Response:
    """A response with a body of one piece."""

    length = 1

    def __init__(self, ended: Any) -> None:
        self._ended = ended

    def deliverBody(self, protocol: Any) -> None:
        protocol.makeConnection(StringTransport())
        self._ended()
        protocol.connectionLost(ConnectionDone())


@given(st.lists(st.tuples(st.sampled_from(["ask", "answer", "read", "fail", "cancel"]), st.integers(0, 9))))
def test_the_limit_holds_for_any_order_of_events(course: list[tuple[str, int]]) -> None:
    """As many requests run as may while some wait."""
    agent = _Counting()
    limited = ConcurrencyLimit(agent, 3, Clock())
    asked: list[Outcome] = []
    unread: list[Any] = []

    def step(what: str, which: int) -> None:
        if what == "ask":
            asked.append(Outcome(limited.request(b"GET", b"http://r.example/")))
        elif what in ("answer", "fail") and agent.running:
            one = agent.running.pop(which % len(agent.running))
            if what == "fail":
                one.errback(ConnectionLost())
            else:
                unread.append(None)
                one.callback(_Response(unread.pop))
        elif what == "read" and (bodies := [o for o in asked if o and hasattr(o[0], "deliverBody")]):
            bodies[which % len(bodies)].pop().deliverBody(Protocol())
        elif what == "cancel" and asked:
            asked[which % len(asked)].work.cancel()

    for what, which in course:
        step(what, which)
        waiting = len([o for o in asked if not o and not o.work.called]) - len(agent.running)
        running = len(agent.running) + len(unread)
        assert running <= 3
        assert running == 3 or waiting <= 0


REGISTRY, TOKENS = "registry.example", "auth.example"
DOWN = [Refused(), SSLError(), ConnectTimedOut(), DNSLookupError(), ConnectError()]


class TwoServers:
    """A client of two servers, which respond until told otherwise."""

    def __init__(self) -> None:
        self.clock, self.world = Clock(), World({REGISTRY: _yes, TOKENS: _yes})
        self.agent = HostCircuitBreaker(self.world.agent, self.clock)

    def ask(self, host: str) -> BaseException | int:
        """Return the status, or the error."""
        outcome = Outcome(self.agent.request(b"GET", f"https://{host}/x".encode()))
        self.world.agent.flush()
        return outcome.error if hasattr(outcome[0], "value") else int(outcome.get().code)


def _yes(_: object) -> Reply:
    return Reply(200)


def test_a_circuit_breaker_is_an_agent() -> None:
    assert verifyObject(IAgent, TwoServers().agent)


@pytest.mark.parametrize("error", DOWN, ids=lambda error: type(error).__name__)
def test_the_circuit_opens_for_one_server_only(error: Exception) -> None:
    """It closes when the server responds again."""
    asker = TwoServers()
    asker.world.agent.failing[TOKENS] = error
    assert asker.ask(TOKENS) is error
    del asker.world.agent.failing[TOKENS]
    assert asker.ask(TOKENS) is error
    assert asker.ask(REGISTRY) == 200
    asker.clock.advance(FIRST_DELAY)
    assert asker.ask(TOKENS) == 200


def test_each_failure_doubles_the_delay() -> None:
    """The longest is half a minute; a response resets it."""
    asker, lengths = TwoServers(), []
    for _ in range(7):
        asker.world.agent.failing[TOKENS] = Refused()
        asker.ask(TOKENS)
        asker.world.agent.failing[TOKENS] = AddressRefused("it was asked")
        start = asker.clock.seconds()
        while isinstance(asker.ask(TOKENS), Refused):
            asker.clock.advance(0.5)
        lengths.append(asker.clock.seconds() - start)
    assert lengths == [FIRST_DELAY, 2, 4, 8, 16, LONGEST_DELAY, LONGEST_DELAY]
    asker.world.agent.failing.clear()
    assert asker.ask(TOKENS) == 200
    asker.world.agent.failing[TOKENS] = Refused()
    asker.ask(TOKENS)
    asker.world.agent.failing.clear()
    asker.clock.advance(FIRST_DELAY)
    assert asker.ask(TOKENS) == 200


@pytest.mark.parametrize("error", [ConnectBindError(24, "too many files"), AddressRefused("private")])
def test_local_failures_do_not_open_the_circuit(error: Exception) -> None:
    """A lack of descriptors, or an address that is not allowed."""
    asker = TwoServers()
    asker.world.agent.failing[TOKENS] = error
    assert asker.ask(TOKENS) is error
    del asker.world.agent.failing[TOKENS]
    assert asker.ask(TOKENS) == 200


def test_a_lost_connection_does_not_open_the_circuit() -> None:
    asker = TwoServers()
    asker.world.servers[TOKENS] = lambda _: DEAD
    assert isinstance(asker.ask(TOKENS), Exception)
    asker.world.servers[TOKENS] = _yes
    assert asker.ask(TOKENS) == 200


def test_a_clock_that_is_set_back_prolongs_no_delay() -> None:
    asker = TwoServers()
    asker.clock.advance(1000)
    asker.world.agent.failing[TOKENS] = Refused()
    asker.ask(TOKENS)
    del asker.world.agent.failing[TOKENS]
    asker.clock.rightNow -= 500
    assert asker.ask(TOKENS) == 200


HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nRateLimit-Limit: 100;w=21600\r\nRateLimit-Remaining: 7\r\n\r\n"
)


def test_a_response_is_measured() -> None:
    """Its seconds, the bytes of its body and its quota count for the upstream."""
    clock, wire, metrics = Clock(), Wire(), Metrics(CollectorRegistry())
    allowed: list[tuple[int | None, int | None]] = []
    agent = InstrumentedAgent(wire.agent, "docker", metrics, clock, lambda *quota: allowed.append(quota))
    verifyObject(IAgent, agent)
    response = Outcome(agent.request(b"GET", b"http://r.example/"))
    clock.advance(3)
    wire.send(HEAD % 10 + b"12345")
    verifyObject(IResponse, response.get())
    body = Outcome(content(response.get()))
    wire.send(b"67890")
    assert body.get() == b"1234567890"
    seen = scraped(metrics.registry)
    assert seen["dockmirror_received_bytes_total", ("docker",)] == 10
    assert seen["dockmirror_upstream_seconds_sum", ("docker",)] == 3
    assert seen["dockmirror_upstream_ratelimit_limit", ("docker",)] == 100
    assert seen["dockmirror_upstream_ratelimit_remaining", ("docker",)] == 7
    assert allowed == [(100, 7)]


def test_a_failure_is_not_measured() -> None:
    wire, metrics = Wire(), Metrics(CollectorRegistry())
    outcome = Outcome(
        InstrumentedAgent(wire.agent, "a", metrics, Clock(), print).request(b"GET", b"http://r.example/")
    )
    wire.lose(ConnectionError())
    assert outcome.error
    assert scraped(metrics.registry)["dockmirror_upstream_seconds_count", ("a",)] == 0


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


@implementer(IAgentEndpointFactory, IStreamClientEndpoint)
class PathRecorder:
    """An endpoint for every URL, which keeps the sent bytes."""

    def __init__(self) -> None:
        self.transport = StringTransport()

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        return self

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        protocol = protocolFactory.buildProtocol(None)  # type: ignore[arg-type]
        assert protocol is not None
        protocol.makeConnection(self.transport)
        return succeed(protocol)


@pytest.mark.parametrize(
    "target",
    ["/", "/a", "//two//slashes/", "//host.example/a?b=//c", "/a;b?c=d&e", "/v2/x/blobs/sha256:0?ns=a"],
)
def test_a_path_is_sent_as_it_is_written(target: str) -> None:
    """Python's ``urlunparse`` has no part in it."""
    wire = PathRecorder()
    RawPathAgent.usingEndpointFactory(Clock(), wire).request(b"GET", f"https://cdn.example{target}".encode())
    assert wire.transport.value().partition(b"\r\n")[0] == f"GET {target} HTTP/1.1".encode()
