"""HTTP requests to an upstream: the sent bytes, failures, and bodies that are read whole."""

# mypy: allow-untyped-calls

from __future__ import annotations

import gzip

import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectBindError, ConnectError, ConnectionLost, DNSLookupError, SSLError
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.error import TimeoutError as ConnectTimedOut
from twisted.internet.task import Clock
from twisted.web.client import HTTPConnectionPool

from dockmirror.headers import first
from dockmirror.oci.errors import RegistryError, TimedOut, Unavailable, Unreachable, Unreadable
from dockmirror.upstream.checked_endpoint import AddressRefused
from dockmirror.upstream.upstream_client import UpstreamClient, content_length
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


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def requester(world: World, clock: Clock) -> UpstreamClient:
    """Return its client."""
    return client(world.agent, clock)


class TestSent:
    """Bytes that reach the server."""

    def test_headers_arrive_as_given(self, world: World, requester: UpstreamClient) -> None:
        """Two lines of one name stay two; only headers that HTTP needs are added."""
        now(requester.request("GET", URL, (("Accept", "a/b"), ("Accept", "c/d"), ("Range", "bytes=0-1"))))
        (seen,) = world.seen
        assert seen.headers == {
            "accept": ["a/b", "c/d"],
            "accept-encoding": ["identity"],
            "connection": ["close"],
            "host": [HOST],
            "range": ["bytes=0-1"],
        }

    @pytest.mark.parametrize(
        "target",
        [
            "/a/sha256:0?X-Amz-Credential=AK%2F2024%2Fs3&X-Amz-Signature=0f&b=c+d&e==&f&g=",
            "/%7Ea/~b/%2F/%2f/c%20d/!$&'()*+,;=:@?~=%7E&%7e&*'()!&a=b;c=d&/?:@",
            "/a%zz?%",
        ],
    )
    def test_a_url_arrives_as_it_is_written(
        self, world: World, requester: UpstreamClient, target: str
    ) -> None:
        """It may be signed."""
        world.servers[HOST] = lambda _: Reply(200)
        now(requester.request("GET", f"https://{HOST}{target}"))
        assert world.seen[0].url == f"https://{HOST}{target}"

    @pytest.mark.parametrize("host", ["[2001:db8::1]", "[2001:db8::1]:5000", "[::ffff:192.0.2.1]"])
    def test_a_host_may_be_an_ipv6_address(self, world: World, requester: UpstreamClient, host: str) -> None:
        """With a port and without."""
        world.servers[host] = lambda _: Reply(200)
        url = f"http://{host}/a%20b?c=%2F"
        now(requester.request("GET", url))
        assert world.seen[0].url == url

    @pytest.mark.parametrize(
        "host", ["my_registry:5000", "r_1.example", "-r.example", "xn--bcher-kva.example"]
    )
    def test_a_host_arrives_as_it_is_written(
        self, world: World, requester: UpstreamClient, host: str
    ) -> None:
        """Names of containers have underscores, which web hosts have not."""
        world.servers[host] = lambda _: Reply(200)
        now(requester.request("GET", f"http://{host}/v2/"))
        assert world.seen[0].url == f"http://{host}/v2/"

    def test_a_form_is_posted(self, world: World, requester: UpstreamClient) -> None:
        now(requester.request("POST", URL, form=(("username", "a&b"), ("scope", "x y"))))
        (seen,) = world.seen
        assert (seen.method, seen.body) == ("POST", b"username=a%26b&scope=x+y")
        assert seen.headers["content-type"] == ["application/x-www-form-urlencoded"]

    def test_cookies_are_not_kept(self, world: World, requester: UpstreamClient) -> None:
        """Clients must not share a session."""
        world.reply(HOST, "/v2/", Reply(200, b"{}", (("Set-Cookie", "session=1; Path=/"),)))
        now(requester.request("GET", URL))
        now(requester.request("GET", URL))
        assert [seen.header("Cookie") for seen in world.seen] == [None, None]

    def test_a_body_labelled_gzip_is_not_decoded(self, world: World, requester: UpstreamClient) -> None:
        """A layer is a gzip file, and would no longer match its digest."""
        layer = gzip.compress(b"layer")
        world.reply(HOST, "/v2/", Reply(200, layer, (("Content-Encoding", "gzip"),)))
        response = now(requester.request("GET", URL))
        assert not first(response.headers, "Content-Encoding")
        assert content_length(response) == len(layer)
        assert now(requester.read(response, 100)) == layer


class TestNoAnswer:
    """Servers that do not respond."""

    @pytest.mark.parametrize(
        ("error", "why"),
        [
            (DNSLookupError("no results for hostname lookup"), "its name cannot be resolved"),
            (Refused(), "Connection was refused by other side"),
            (SSLError("its certificate is for another name"), "its certificate is for another name"),
            (ConnectError(string="no route"), "no route"),
        ],
    )
    def test_the_message_names_upstream_server_and_cause(
        self, world: World, requester: UpstreamClient, error: Exception, why: str
    ) -> None:
        """Path and query are omitted, since they may be signed; the status is 502."""
        world.agent.failing[HOST] = error
        with pytest.raises(Unreachable) as raised:
            now(requester.request("GET", SIGNED))
        assert raised.value.status == 502
        assert str(raised.value).startswith(f"the upstream hub cannot be reached: {HOST}: ")
        assert why in str(raised.value)
        assert "s1gned" not in str(raised.value)

    @pytest.mark.parametrize(
        ("error", "row"),
        [(Refused(), Unreachable), (ConnectBindError(24, "too many files"), Unavailable)],
    )
    @pytest.mark.parametrize("host", [HUB, HOST])
    def test_failures_of_other_servers_are_marked(
        self, world: World, requester: UpstreamClient, host: str, error: Exception, row: type[Exception]
    ) -> None:
        """A lack of descriptors is the mirror's own failure."""
        world.agent.failing[host] = error
        with pytest.raises(RegistryError) as raised:
            now(requester.request("GET", f"https://{host}/v2/"))
        assert type(raised.value) is row
        assert raised.value.from_other_host is (host == HOST)

    def test_a_refused_address_is_logged(self, world: World, requester: UpstreamClient) -> None:
        """Clients need not learn internal addresses."""
        world.agent.failing[HOST] = AddressRefused(f"{HOST} resolves to 10.0.0.1, which is private")
        with logged() as log, pytest.raises(Unreachable) as raised:
            now(requester.request("GET", SIGNED))
        assert "10.0.0.1" not in str(raised.value)
        assert any(f"hub: {HOST}: {HOST} resolves to 10.0.0.1, which is private" in line for line in log)
        assert not any("s1gned" in line for line in log)

    def test_a_connection_that_takes_too_long_is_504(self, world: World, requester: UpstreamClient) -> None:
        world.agent.failing[HOST] = ConnectTimedOut(string="connecting took more than 10 s")
        with pytest.raises(TimedOut, match="more than 10 s") as raised:
            now(requester.request("GET", URL))
        assert raised.value.status == 504

    def test_a_silent_server_is_left_after_a_minute(
        self, world: World, requester: UpstreamClient, clock: Clock
    ) -> None:
        """The request is cancelled, and not repeated."""
        world.reply(HOST, "/v2/", SILENT)
        outcome = Outcome(requester.request("GET", URL))
        clock.advance(59.9)
        assert not outcome
        clock.advance(0.1)
        world.agent.flush()
        assert isinstance(outcome.error, TimedOut)
        assert "it did not answer within 60 s" in str(outcome.error)
        assert world.abandoned == world.seen
        assert len(world.seen) == 1

    def test_a_request_on_a_dead_connection_is_retried(self, world: World, requester: UpstreamClient) -> None:
        """An idle connection may have been closed."""
        world.reply(HOST, "/v2/", DEAD, Reply(200, b"{}"))
        assert now(requester.request("GET", URL)).code == 200
        assert len(world.seen) == 2

    def test_a_request_is_retried_only_once(self, world: World, requester: UpstreamClient) -> None:
        world.reply(HOST, "/v2/", DEAD)
        with pytest.raises(Unreachable, match="cannot be reached"):
            now(requester.request("GET", URL))
        assert len(world.seen) == 2

    def test_a_form_is_not_retried(self, world: World, requester: UpstreamClient) -> None:
        """The server may have acted on it."""
        world.reply(HOST, "/v2/", DEAD)
        with pytest.raises(Unreachable):
            now(requester.request("POST", URL, form=(("a", "b"),)))
        assert len(world.seen) == 1

    def test_cancelling_closes_the_connection(self, world: World, requester: UpstreamClient) -> None:
        """The request is not repeated."""
        world.reply(HOST, "/v2/", SILENT)
        outcome = Outcome(requester.request("GET", URL))
        outcome.work.cancel()
        world.agent.flush()
        assert isinstance(outcome.error, CancelledError)
        assert world.abandoned == world.seen
        assert len(world.seen) == 1


@pytest.fixture
def one_server() -> World:
    """Return one server."""
    return World()


@pytest.fixture
def client_of_one(one_server: World) -> UpstreamClient:
    """Return its client."""
    return client(one_server.agent)


class TestBodies:
    """Bodies that are read whole, and bodies that are discarded."""

    @pytest.mark.parametrize("told", [True, False])
    def test_a_body_has_a_limit(self, one_server: World, client_of_one: UpstreamClient, told: bool) -> None:
        """With an announced length and without; endless bodies are left."""
        one_server.reply(HOST, "/v2/", Reply(200, b"x" * 11, told=told), Reply(200, b"x" * 10, told=told))
        with pytest.raises(Unavailable, match="larger than 10 bytes"):
            now(client_of_one.read(now(client_of_one.request("GET", URL)), 10))
        assert now(client_of_one.read(now(client_of_one.request("GET", URL)), 10)) == b"x" * 10

    def test_a_short_discarded_body_is_read_to_its_end(self) -> None:
        """Its connection serves the next request."""
        wire = Wire(HTTPConnectionPool(Clock()))
        client_of_one = client(wire.agent)
        for _ in range(2):
            outcome = Outcome(client_of_one.request("GET", URL))
            wire.send(b"HTTP/1.1 307 See There\r\nContent-Length: 9\r\n\r\nsee ")
            client_of_one.release(outcome.get())
            wire.send(b"there")
        assert len(wire.transports) == 1
        assert wire.transports[0].value().count(b"GET /v2/ ") == 2

    def test_a_long_discarded_body_is_not_read(self) -> None:
        """Its connection is closed."""
        wire = Wire(HTTPConnectionPool(Clock()))
        client_of_one = client(wire.agent)
        outcome = Outcome(client_of_one.request("GET", URL))
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nbegun")
        client_of_one.release(outcome.get())
        assert wire.transports[0].disconnecting

    def test_an_endless_discarded_body_is_left(self) -> None:
        clock = Clock()
        wire = Wire()
        client_of_one = client(wire.agent, clock)
        outcome = Outcome(client_of_one.request("GET", URL))
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nsee ")
        client_of_one.release(outcome.get())
        assert not wire.transports[0].disconnecting
        clock.advance(60)
        assert wire.transports[0].disconnecting

    def test_two_lengths_are_an_invalid_response(self) -> None:
        """They are ambiguous, and end the connection."""
        wire = Wire()
        outcome = Outcome(client(wire.agent).request("GET", URL))
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n")
        assert isinstance(outcome.error, Unreachable)
        assert wire.transports[0].disconnecting

    def test_a_request_is_retried_if_the_headers_break_off(self) -> None:
        wire = Wire()
        outcome = Outcome(client(wire.agent).request("GET", URL))
        wire.send(b"HTTP/1.1 200 OK\r\nContent-")
        wire.lose(ConnectionLost())
        assert not outcome
        wire.send(b"HTTP/1.1 200 OK\r\nContent-")
        wire.lose(ConnectionLost())
        assert isinstance(outcome.error, Unreadable)
        assert len(wire.transports) == 2

    def test_an_invalid_response_is_not_retried(self) -> None:
        wire = Wire()
        outcome = Outcome(client(wire.agent).request("GET", URL))
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n")
        assert isinstance(outcome.error, Unreadable)
        assert len(wire.transports) == 1

    def test_a_body_that_is_read_whole_has_a_time_limit(self) -> None:
        """A byte now and then does not extend it."""
        wire, clock = Wire(), Clock()
        client_of_one = client(wire.agent, clock)
        response = Outcome(client_of_one.request("GET", URL))
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        read = Outcome(client_of_one.read(response.get(), 1000))
        for _ in range(59):
            clock.advance(1)
            wire.send(b"x")
        assert not read
        clock.advance(1)
        assert isinstance(read.error, TimedOut)
        assert wire.transports[0].disconnecting


class TestLength:
    """Announced lengths."""

    @pytest.mark.parametrize(
        ("method", "reply", "length"),
        [
            ("GET", Reply(200, b"abc"), 3),
            ("HEAD", Reply(200, b"abc"), 3),
            ("GET", Reply(200, b"abc", told=False), None),
            ("HEAD", Reply(200, b"abc", told=False), 0),
        ],
    )
    def test_the_announced_length(
        self, one_server: World, client_of_one: UpstreamClient, method: str, reply: Reply, length: int | None
    ) -> None:
        """For a HEAD it is the length that a GET would bring; without an announcement it is None."""
        one_server.reply(HOST, "/v2/", reply)
        assert content_length(now(client_of_one.request(method, URL))) == length
