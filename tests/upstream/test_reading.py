"""Bodies of responses that are read here, and those that nobody wants."""

# mypy: allow-untyped-calls

from __future__ import annotations

import pytest
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.web.client import HTTPConnectionPool

from dockmirror.oci.errors import TimedOut, Unavailable, Unreachable, Unreadable
from dockmirror.upstream.upstream_client import UpstreamClient, length_of
from tests.fakes import Reply, Wire, World
from tests.stacks import Outcome, client, now

HOST = "registry.example"
URL = f"https://{HOST}/v2/"


@pytest.fixture
def world() -> World:
    """One server."""
    return World()


@pytest.fixture
def asking(world: World) -> UpstreamClient:
    """What asks."""
    return client(world.agent)


class TestBodies:
    """Bodies that are read, and those that nobody wants."""

    @pytest.mark.parametrize("told", [True, False])
    def test_a_body_has_a_limit(self, world: World, asking: UpstreamClient, told: bool) -> None:
        """Whether its length was told or not; a server that sends without end is left."""
        world.reply(HOST, "/v2/", Reply(200, b"x" * 11, told=told), Reply(200, b"x" * 10, told=told))
        with pytest.raises(Unavailable, match="larger than 10 bytes"):
            now(asking.read(now(asking.request("GET", URL)), 10))
        assert now(asking.read(now(asking.request("GET", URL)), 10)) == b"x" * 10

    def test_a_short_body_nobody_wants_is_read_to_its_end(self) -> None:
        """So that its connection serves the next request."""
        wire = Wire(HTTPConnectionPool(Clock()))
        asking = client(wire.agent)
        for _ in range(2):
            outcome = Outcome(asking.request("GET", URL))
            wire.send(b"HTTP/1.1 307 See There\r\nContent-Length: 9\r\n\r\nsee ")
            asking.release(outcome.get())
            wire.send(b"there")
        assert len(wire.transports) == 1
        assert wire.transports[0].value().count(b"GET /v2/ ") == 2

    def test_a_long_body_nobody_wants_is_not_read(self) -> None:
        """Its connection is closed."""
        wire = Wire(HTTPConnectionPool(Clock()))
        asking = client(wire.agent)
        outcome = Outcome(asking.request("GET", URL))
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nbegun")
        asking.release(outcome.get())
        assert wire.transports[0].disconnecting

    def test_a_body_nobody_wants_that_never_ends_is_left(self) -> None:
        """After the time in which an upstream must send something."""
        clock = Clock()
        wire = Wire()
        asking = client(wire.agent, clock)
        outcome = Outcome(asking.request("GET", URL))
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nsee ")
        asking.release(outcome.get())
        assert not wire.transports[0].disconnecting
        clock.advance(60)
        assert wire.transports[0].disconnecting

    def test_two_lengths_are_none(self) -> None:
        """What could be understood in two ways is an answer of no use, and ends its connection."""
        wire = Wire()
        outcome = Outcome(client(wire.agent).request("GET", URL))
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n")
        assert isinstance(outcome.error, Unreachable)
        assert wire.transports[0].disconnecting

    def test_headers_that_break_off(self) -> None:
        """Are no answer yet: the server is asked once more, as where a connection died before."""
        wire = Wire()
        outcome = Outcome(client(wire.agent).request("GET", URL))
        wire.send(b"HTTP/1.1 200 OK\r\nContent-")
        wire.lose(ConnectionLost())
        assert not outcome
        wire.send(b"HTTP/1.1 200 OK\r\nContent-")
        wire.lose(ConnectionLost())
        assert isinstance(outcome.error, Unreadable)
        assert len(wire.transports) == 2

    def test_what_is_no_http(self) -> None:
        """Is not asked for again: it would be none the next time."""
        wire = Wire()
        outcome = Outcome(client(wire.agent).request("GET", URL))
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n")
        assert isinstance(outcome.error, Unreadable)
        assert len(wire.transports) == 1

    def test_what_comes_too_slowly(self) -> None:
        """A byte now and then is no answer either, when it has to be read whole."""
        wire, clock = Wire(), Clock()
        asking = client(wire.agent, clock)
        response = Outcome(asking.request("GET", URL))
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        read = Outcome(asking.read(response.get(), 1000))
        for _ in range(59):
            clock.advance(1)
            wire.send(b"x")
        assert not read
        clock.advance(1)
        assert isinstance(read.error, TimedOut)
        assert wire.transports[0].disconnecting


class TestLength:
    """How long a body is told to be."""

    @pytest.mark.parametrize(
        ("method", "reply", "length"),
        [
            ("GET", Reply(200, b"abc"), 3),
            ("HEAD", Reply(200, b"abc"), 3),
            ("GET", Reply(200, b"abc", told=False), None),
            ("HEAD", Reply(200, b"abc", told=False), 0),
        ],
    )
    def test_where_it_is_told(
        self, world: World, asking: UpstreamClient, method: str, reply: Reply, length: int | None
    ) -> None:
        """Of a HEAD, the length of what GET would bring; None where the server does not tell."""
        world.reply(HOST, "/v2/", reply)
        assert length_of(now(asking.request(method, URL))) == length
