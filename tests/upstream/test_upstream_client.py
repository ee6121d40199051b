"""Requests out: what reaches a server, and what is said when it gives no answer."""

# mypy: allow-untyped-calls

from __future__ import annotations

import gzip

import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectBindError, ConnectError, DNSLookupError, SSLError
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.error import TimeoutError as ConnectTimedOut
from twisted.internet.task import Clock

from dockmirror.headers import first
from dockmirror.oci.errors import RegistryError, TimedOut, Unavailable, Unreachable
from dockmirror.upstream.checked_endpoint import AddressRefused
from dockmirror.upstream.upstream_client import UpstreamClient, length_of
from tests.fakes import DEAD, SILENT, Reply, World
from tests.internet import HUB
from tests.stacks import Outcome, client, logged, now

HOST = "registry.example"
URL = f"https://{HOST}/v2/"
SIGNED = f"{URL}?signature=s1gned"


@pytest.fixture
def world() -> World:
    """One server, which says yes."""
    world = World()
    world.reply(HOST, "/v2/", Reply(200, b"{}"))
    return world


@pytest.fixture
def clock() -> Clock:
    """The time that the client goes by."""
    return Clock()


@pytest.fixture
def asking(world: World, clock: Clock) -> UpstreamClient:
    """What asks."""
    return client(world.agent, clock)


class TestSent:
    """What reaches the server."""

    def test_headers_arrive_as_given(self, world: World, asking: UpstreamClient) -> None:
        """Also two lines of one name; and there are no others but those that HTTP needs."""
        now(asking.request("GET", URL, (("Accept", "a/b"), ("Accept", "c/d"), ("Range", "bytes=0-1"))))
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
    def test_an_address_arrives_as_it_is_written(
        self, world: World, asking: UpstreamClient, target: str
    ) -> None:
        """Byte for byte: it may be signed."""
        world.servers[HOST] = lambda _: Reply(200)
        now(asking.request("GET", f"https://{HOST}{target}"))
        assert world.seen[0].url == f"https://{HOST}{target}"

    @pytest.mark.parametrize("host", ["[2001:db8::1]", "[2001:db8::1]:5000", "[::ffff:192.0.2.1]"])
    def test_an_address_may_be_of_ipv6(self, world: World, asking: UpstreamClient, host: str) -> None:
        """As host of any server, with and without a port; what follows it arrives as it is written."""
        world.servers[host] = lambda _: Reply(200)
        url = f"http://{host}/a%20b?c=%2F"
        now(asking.request("GET", url))
        assert world.seen[0].url == url

    @pytest.mark.parametrize(
        "host", ["my_registry:5000", "r_1.example", "-r.example", "xn--bcher-kva.example"]
    )
    def test_a_host_arrives_as_it_is_written(self, world: World, asking: UpstreamClient, host: str) -> None:
        """Whatever is known by it: names of containers have underscores, which hosts of the web have not."""
        world.servers[host] = lambda _: Reply(200)
        now(asking.request("GET", f"http://{host}/v2/"))
        assert world.seen[0].url == f"http://{host}/v2/"

    def test_a_form_is_posted(self, world: World, asking: UpstreamClient) -> None:
        """Encoded as forms are."""
        now(asking.request("POST", URL, form=(("username", "a&b"), ("scope", "x y"))))
        (seen,) = world.seen
        assert (seen.method, seen.body) == ("POST", b"username=a%26b&scope=x+y")
        assert seen.headers["content-type"] == ["application/x-www-form-urlencoded"]

    def test_cookies_are_not_kept(self, world: World, asking: UpstreamClient) -> None:
        """One user's session must not travel with another's request."""
        world.reply(HOST, "/v2/", Reply(200, b"{}", (("Set-Cookie", "session=1; Path=/"),)))
        now(asking.request("GET", URL))
        now(asking.request("GET", URL))
        assert [seen.header("Cookie") for seen in world.seen] == [None, None]

    def test_what_is_labelled_gzip_arrives_as_it_is_stored(
        self, world: World, asking: UpstreamClient
    ) -> None:
        """A layer is a gzip file; whoever decodes it because of a label gets other bytes than its digest."""
        layer = gzip.compress(b"layer")
        world.reply(HOST, "/v2/", Reply(200, layer, (("Content-Encoding", "gzip"),)))
        response = now(asking.request("GET", URL))
        assert not first(response.headers, "Content-Encoding")
        assert length_of(response) == len(layer)
        assert now(asking.read(response, 100)) == layer


class TestNoAnswer:
    """Servers that give none."""

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
        self, world: World, asking: UpstreamClient, error: Exception, why: str
    ) -> None:
        """And nothing of the address's path and query, which may be signed; the status is 502."""
        world.agent.failing[HOST] = error
        with pytest.raises(Unreachable) as raised:
            now(asking.request("GET", SIGNED))
        assert raised.value.status == 502
        assert str(raised.value).startswith(f"the upstream hub cannot be reached: {HOST}: ")
        assert why in str(raised.value)
        assert "s1gned" not in str(raised.value)

    @pytest.mark.parametrize(
        ("error", "row"),
        [(Refused(), Unreachable), (ConnectBindError(24, "too many files"), Unavailable)],
    )
    @pytest.mark.parametrize("host", [HUB, HOST])
    def test_whose_failure_it_is(
        self, world: World, asking: UpstreamClient, host: str, error: Exception, row: type[Exception]
    ) -> None:
        """The registry's, or another server's; or that there was no descriptor left, which is ours."""
        world.agent.failing[host] = error
        with pytest.raises(RegistryError) as raised:
            now(asking.request("GET", f"https://{host}/v2/"))
        assert type(raised.value) is row
        assert raised.value.from_other_host is (host == HOST)

    def test_an_address_that_is_refused_stands_in_the_log(self, world: World, asking: UpstreamClient) -> None:
        """Where the operator reads it; a client need not learn what a name resolves to in here."""
        world.agent.failing[HOST] = AddressRefused(f"{HOST} resolves to 10.0.0.1, which is private")
        with logged() as log, pytest.raises(Unreachable) as raised:
            now(asking.request("GET", SIGNED))
        assert "10.0.0.1" not in str(raised.value)
        assert any(f"hub: {HOST}: {HOST} resolves to 10.0.0.1, which is private" in line for line in log)
        assert not any("s1gned" in line for line in log)

    def test_a_connection_that_takes_too_long_is_504(self, world: World, asking: UpstreamClient) -> None:
        """As if the server itself did not answer."""
        world.agent.failing[HOST] = ConnectTimedOut(string="connecting took more than 10 s")
        with pytest.raises(TimedOut, match="more than 10 s") as raised:
            now(asking.request("GET", URL))
        assert raised.value.status == 504

    def test_a_silent_server_is_left_after_a_minute(
        self, world: World, asking: UpstreamClient, clock: Clock
    ) -> None:
        """The request is given up, not left lying, and not repeated."""
        world.reply(HOST, "/v2/", SILENT)
        outcome = Outcome(asking.request("GET", URL))
        clock.advance(59.9)
        assert not outcome
        clock.advance(0.1)
        world.agent.flush()
        assert isinstance(outcome.error, TimedOut)
        assert "it did not answer within 60 s" in str(outcome.error)
        assert world.abandoned == world.seen
        assert len(world.seen) == 1

    def test_a_connection_that_died_is_tried_once_more(self, world: World, asking: UpstreamClient) -> None:
        """A kept connection may have been closed while it lay idle."""
        world.reply(HOST, "/v2/", DEAD, Reply(200, b"{}"))
        assert now(asking.request("GET", URL)).code == 200
        assert len(world.seen) == 2

    def test_only_once(self, world: World, asking: UpstreamClient) -> None:
        """A server that always closes is not asked for ever."""
        world.reply(HOST, "/v2/", DEAD)
        with pytest.raises(Unreachable, match="cannot be reached"):
            now(asking.request("GET", URL))
        assert len(world.seen) == 2

    def test_a_form_is_not_tried_again(self, world: World, asking: UpstreamClient) -> None:
        """The server may have acted on it."""
        world.reply(HOST, "/v2/", DEAD)
        with pytest.raises(Unreachable):
            now(asking.request("POST", URL, form=(("a", "b"),)))
        assert len(world.seen) == 1

    def test_who_leaves_takes_the_request_along(self, world: World, asking: UpstreamClient) -> None:
        """The server sees the connection closed, and is not asked again on nobody's behalf."""
        world.reply(HOST, "/v2/", SILENT)
        outcome = Outcome(asking.request("GET", URL))
        outcome.work.cancel()
        world.agent.flush()
        assert isinstance(outcome.error, CancelledError)
        assert world.abandoned == world.seen
        assert len(world.seen) == 1
