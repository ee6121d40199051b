"""HTTP requests to an upstream: the sent bytes, failures, and the bodies of responses."""

# mypy: allow-untyped-calls

from __future__ import annotations

import gzip
from typing import Any

import pytest
from twisted.internet.defer import CancelledError
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
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.web.client import HTTPConnectionPool
from twisted.web.iweb import IResponse
from zope.interface.verify import verifyObject

from dockmirror.headers import first
from dockmirror.interfaces import IBody
from dockmirror.oci.digest import Descriptor
from dockmirror.oci.errors import RegistryError, TimedOut, Unavailable, Unreachable, Unreadable
from dockmirror.upstream.checked_endpoint import AddressRefused
from dockmirror.upstream.upstream_client import content_length
from tests.fakes import DEAD, SILENT, Reply, Wire, World
from tests.internet import HUB
from tests.stacks import Outcome, client, logged, now

HOST = "registry.example"
URL = f"https://{HOST}/v2/"
SIGNED = f"{URL}?signature=s1gned"


@pytest.fixture
def world() -> World:
    """Return one server, which responds with 200."""
    world = World()
    world.reply(HOST, "/v2/", Reply(200, b"{}"))
    return world


def request(world: World, url: str = URL, method: str = "GET", **details: Any) -> IResponse:
    return now(client(world.agent).request(method, url, **details))


def test_headers_arrive_as_given(world: World) -> None:
    """Two lines of one name stay two; only headers that HTTP needs are added."""
    request(world, headers=(("Accept", "a/b"), ("Accept", "c/d"), ("Range", "bytes=0-1")))
    (seen,) = world.seen
    assert seen.headers == {
        "accept": ["a/b", "c/d"],
        "accept-encoding": ["identity"],
        "connection": ["close"],
        "host": [HOST],
        "range": ["bytes=0-1"],
    }


@pytest.mark.parametrize(
    ("host", "target"),
    [
        (HOST, "/a/sha256:0?X-Amz-Credential=AK%2F2024%2Fs3&X-Amz-Signature=0f&b=c+d&e==&f&g="),
        (HOST, "/%7Ea/~b/%2F/%2f/c%20d/!$&'()*+,;=:@?~=%7E&%7e&*'()!&a=b;c=d&/?:@"),
        (HOST, "/a%zz?%"),
        ("[2001:db8::1]", "/a%20b?c=%2F"),
        ("[2001:db8::1]:5000", "/a%20b?c=%2F"),
        ("[::ffff:192.0.2.1]", "/"),
        ("my_registry:5000", "/v2/"),
        ("r_1.example", "/v2/"),
        ("-r.example", "/v2/"),
        ("xn--bcher-kva.example", "/v2/"),
    ],
)
def test_a_url_arrives_as_it_is_written(world: World, host: str, target: str) -> None:
    """It may be signed; the host may be an address, or a container's name with an underscore."""
    world.servers[host] = lambda _: Reply(200)
    for scheme in ("http", "https"):
        request(world, f"{scheme}://{host}{target}")
        assert world.seen[-1].url == f"{scheme}://{host}{target}"


def test_a_form_is_posted_without_cookies(world: World) -> None:
    """Clients must not share a session."""
    world.reply(HOST, "/v2/", Reply(200, b"{}", (("Set-Cookie", "session=1; Path=/"),)))
    upstream = client(world.agent)
    for _ in range(2):
        now(upstream.request("POST", URL, form=(("username", "a&b"), ("scope", "x y"))))
        seen = world.seen[-1]
        assert (seen.method, seen.body) == ("POST", b"username=a%26b&scope=x+y")
        assert seen.headers["content-type"] == ["application/x-www-form-urlencoded"]
        assert seen.header("Cookie") is None


def test_a_body_labelled_gzip_is_not_decoded(world: World) -> None:
    """A layer is a gzip file, and would no longer match its digest."""
    layer = gzip.compress(b"layer")
    world.reply(HOST, "/v2/", Reply(200, layer, (("Content-Encoding", "gzip"),)))
    response = request(world)
    assert not first(response.headers, "Content-Encoding")
    assert content_length(response) == len(layer)
    assert now(client(world.agent).read(response, 100)) == layer


@pytest.mark.parametrize(
    ("error", "expected", "status", "reason"),
    [
        (DNSLookupError("no results for hostname lookup"), Unreachable, 502, "its name cannot be resolved"),
        (Refused(), Unreachable, 502, "Connection was refused by other side"),
        (SSLError("its certificate is for another name"), Unreachable, 502, "is for another name"),
        (ConnectError(string="no route"), Unreachable, 502, "no route"),
        (AddressRefused(f"{HOST} resolves to 10.0.0.1"), Unreachable, 502, "see the mirror's log"),
        (ConnectTimedOut(string="connecting took more than 10 s"), TimedOut, 504, "more than 10 s"),
        (ConnectBindError(24, "too many files"), Unavailable, 502, "too many files"),
    ],
)
@pytest.mark.parametrize("host", [HUB, HOST])
def test_a_failure_names_upstream_server_and_cause(
    world: World, host: str, error: Exception, expected: type[RegistryError], status: int, reason: str
) -> None:
    """Neither a query, which may be signed, nor an internal address is shown; the log has the latter."""
    world.agent.failing[host] = error
    with logged() as log, pytest.raises(RegistryError) as raised:
        request(world, SIGNED.replace(HOST, host))
    assert (type(raised.value), raised.value.status) == (expected, status)
    assert str(raised.value).startswith(f"the upstream hub cannot be reached: {host}: ")
    assert reason in str(raised.value)
    assert "10.0.0.1" not in str(raised.value)
    assert any(f"hub: {host}: {error}" in line for line in log)
    assert "s1gned" not in str(raised.value) + "".join(log)
    assert raised.value.from_other_host is (host == HOST)


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_silent_server_is_left_after_a_minute(world: World, cancelled: bool) -> None:
    """The request is cancelled, as by the caller, and not repeated."""
    world.reply(HOST, "/v2/", SILENT)
    clock = Clock()
    outcome = Outcome(client(world.agent, clock).request("GET", URL))
    clock.advance(59.9)
    assert not outcome
    if cancelled:
        outcome.work.cancel()
    else:
        clock.advance(0.1)
        assert "it did not answer within 60 s" in str(outcome.error)
    world.agent.flush()
    assert isinstance(outcome.error, CancelledError if cancelled else TimedOut)
    assert len(world.seen) == 1
    assert world.abandoned == world.seen


def test_a_request_on_a_dead_connection_is_retried_once(world: World) -> None:
    """An idle connection may have been closed; a form is not retried, since the server may have acted."""
    world.reply(HOST, "/v2/", DEAD, Reply(200, b"{}"), DEAD)
    assert request(world).code == 200
    assert len(world.seen) == 2
    with pytest.raises(Unreachable, match="cannot be reached"):
        request(world)
    assert len(world.seen) == 4
    with pytest.raises(Unreachable):
        request(world, method="POST", form=(("a", "b"),))
    assert len(world.seen) == 5


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_that_is_read_has_a_size_limit(world: World, announced: bool) -> None:
    sizes = [Reply(200, b"x" * 11, told=announced), Reply(200, b"x" * 10, told=announced)]
    world.reply(HOST, "/v2/", *sizes)
    with pytest.raises(Unavailable, match="larger than 10 bytes"):
        now(client(world.agent).read(request(world), 10))
    assert now(client(world.agent).read(request(world), 10)) == b"x" * 10


@pytest.mark.parametrize(
    ("method", "announced", "length"),
    [("GET", True, 3), ("HEAD", True, 3), ("GET", False, None), ("HEAD", False, None)],
)
def test_a_head_announces_the_length_of_a_get(
    world: World, method: str, announced: bool, length: int | None
) -> None:
    world.reply(HOST, "/v2/", Reply(200, b"abc", told=announced))
    assert content_length(request(world, method=method)) == length


TEN = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
UNTIL_CLOSED = b"HTTP/1.0 200 OK\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Exchange:
    """A request to an upstream, which the test plays, and the consumer of the response's body.

    :ivar transport: the upstream's connection.
    """

    def __init__(self, headers: bytes = TEN, pool: bool = False) -> None:
        self.clock = Clock()
        self.wire = Wire(HTTPConnectionPool(self.clock) if pool else None)
        self.client = client(self.wire.agent, self.clock)
        self.send, self.lose = self.wire.send, self.wire.lose
        self.consumer = StringTransport()
        self.response = self.request(headers)
        self.transport = self.wire.transports[0]

    def request(self, headers: bytes) -> Outcome:
        """Send a request, and respond with these headers."""
        response = Outcome(self.client.request("GET", URL))
        self.send(headers)
        return response

    @property
    def body(self) -> IBody:
        return self.client.make_body(self.response.get(), Descriptor(size=10))

    @property
    def producer(self) -> Any:
        return self.consumer.producer

    def deliver(self) -> Outcome:
        return Outcome(self.body.deliver(self.consumer))

    def assert_closed(self) -> None:
        """Expect that no producer, timer or connection is left."""
        assert self.producer is None
        assert self.transport.disconnecting
        assert self.clock.getDelayedCalls() == []


@pytest.fixture
def exchange() -> Exchange:
    """Return one whose response has announced ten bytes."""
    return Exchange()


def test_a_short_released_body_is_read_to_its_end() -> None:
    """Its connection serves the next request."""
    short = b"HTTP/1.1 307 See There\r\nContent-Length: 9\r\n\r\nsee "
    exchange = Exchange(short, pool=True)
    exchange.client.release(exchange.response.get())
    exchange.send(b"there")
    exchange.request(short)
    assert len(exchange.wire.transports) == 1
    assert exchange.transport.value().count(b"GET /v2/ ") == 2


def test_a_long_or_endless_released_body_is_left(exchange: Exchange) -> None:
    """A long one is not read at all, a short one for a minute."""
    long = Exchange(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nbegun", pool=True)
    long.client.release(long.response.get())
    assert long.transport.disconnecting
    exchange.client.release(exchange.response.get())
    assert not exchange.transport.disconnecting
    exchange.clock.advance(60)
    assert exchange.transport.disconnecting


@pytest.mark.parametrize("length", [b"5\r\nContent-Length: 6", b"many"])
def test_an_invalid_length_fails_without_a_retry(length: bytes) -> None:
    exchange = Exchange(b"HTTP/1.1 200 OK\r\nContent-Length: " + length + b"\r\n\r\n")
    assert isinstance(exchange.response.error, Unreadable)
    assert len(exchange.wire.transports) == 1
    assert exchange.transport.disconnecting


@pytest.mark.parametrize(
    "sent",
    [b"SSH-2.0-OpenSSH_9\r\n", b"HTTP/1.1 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: x\r\n\r\n"],
)
def test_an_answer_that_is_no_http_is_not_repeated(sent: bytes) -> None:
    error = Exchange(sent).response.error
    assert isinstance(error, Unreadable)
    assert str(error).endswith(f"{HOST}: its answer is not valid HTTP")


def test_a_request_is_retried_once_if_the_headers_break_off() -> None:
    exchange = Exchange(b"HTTP/1.1 200 OK\r\nContent-")
    exchange.lose(ConnectionLost())
    assert not exchange.response
    exchange.send(b"HTTP/1.1 200 OK\r\nContent-")
    exchange.lose(ConnectionLost())
    assert isinstance(exchange.response.error, Unreadable)
    assert len(exchange.wire.transports) == 2


def test_reading_a_body_has_a_time_limit() -> None:
    """A byte now and then does not extend it."""
    exchange = Exchange(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    read = Outcome(exchange.client.read(exchange.response.get(), 1000))
    for _ in range(59):
        exchange.clock.advance(1)
        exchange.send(b"x")
    assert not read
    exchange.clock.advance(1)
    assert isinstance(read.error, TimedOut)
    assert exchange.transport.disconnecting


def test_pieces_are_delivered_as_they_arrive(exchange: Exchange) -> None:
    """The first may have come with the headers; the delivery ends with the last."""
    assert verifyObject(IBody, exchange.body)
    exchange.send(b"01")
    outcome = exchange.deliver()
    exchange.send(b"234")
    assert exchange.consumer.value() == b"01234"
    assert not outcome
    exchange.send(b"56789")
    assert exchange.consumer.value() == b"0123456789"
    assert outcome == [None]
    exchange.assert_closed()


def test_the_consumer_sets_the_pace(exchange: Exchange) -> None:
    """Its pauses stop the upstream."""
    exchange.deliver()
    assert exchange.consumer.streaming
    for step, state in (("pause", "paused"), ("resume", "producing")):
        getattr(exchange.producer, f"{step}Producing")()
        assert exchange.transport.producerState == state


@pytest.mark.parametrize("reason", [ConnectionDone(), ConnectionLost()])
@pytest.mark.parametrize("headers", [TEN, CHUNKED, UNTIL_CLOSED])
def test_a_lost_connection_is_an_error(headers: bytes, reason: Exception) -> None:
    """For a body without length it is the only sign of the end."""
    exchange = Exchange(headers)
    outcome = exchange.deliver()
    exchange.send(b"3\r\nabc\r\n")
    exchange.lose(reason)
    is_end = headers == UNTIL_CLOSED
    assert outcome == [None] if is_end else isinstance(outcome.error, Unreachable)
    assert exchange.consumer.value() == (b"abc" if headers == CHUNKED else b"3\r\nabc\r\n")
    assert exchange.producer is None
    assert exchange.clock.getDelayedCalls() == []


def test_an_upstream_that_stalls_is_left_after_a_minute(exchange: Exchange) -> None:
    """The minute counts from the last byte, or from the end of the consumer's pause."""
    outcome = exchange.deliver()
    for _ in range(3):
        exchange.clock.advance(59)
        exchange.send(b"0")
    exchange.producer.pauseProducing()
    exchange.clock.advance(1000)
    exchange.producer.resumeProducing()
    exchange.clock.advance(59.9)
    assert not outcome
    exchange.clock.advance(0.1)
    assert isinstance(outcome.error, TimedOut)
    exchange.assert_closed()


@pytest.mark.parametrize("error", [CancelledError, Unreachable])
def test_a_body_that_nobody_needs_closes_the_connection(exchange: Exchange, error: type[Exception]) -> None:
    """Cancelled, or stopped as by a client's transport when the client has left."""
    outcome = exchange.deliver()
    exchange.send(b"01234")
    outcome.work.cancel() if error is CancelledError else exchange.producer.stopProducing()
    exchange.send(b"56789")
    assert isinstance(outcome.error, error)
    assert exchange.consumer.value() == b"01234"
    exchange.assert_closed()


@pytest.mark.parametrize("received", [b"", b"0123456789"])
def test_discarding_a_body_closes_the_connection(exchange: Exchange, received: bytes) -> None:
    """It may be complete already."""
    exchange.send(received)
    exchange.body.discard()
    exchange.assert_closed()
