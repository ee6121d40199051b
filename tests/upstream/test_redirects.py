"""Redirects, followed by the mirror."""

# mypy: allow-untyped-calls

from __future__ import annotations

import pytest
from attrs import evolve
from twisted.internet.error import DNSLookupError
from twisted.internet.task import Clock
from twisted.web.client import HTTPConnectionPool

from dockmirror.oci.errors import Unavailable, Unreachable
from dockmirror.upstream.upstream_responses import MAX_REDIRECTS, FinalResponse, follow_redirects
from tests.fakes import ENDLESS, Reply, Wire, World
from tests.stacks import Outcome, client, now

A, B, C = "a.example", "b.example", "c.example"
URL = f"https://{A}/start"
HEADERS = (("Authorization", "Bearer t0ken"), ("Range", "bytes=1-2"), ("Accept", "a/b"))


def to(location: str, status: int = 307) -> Reply:
    """Return a redirect."""
    return Reply(status, b"see there", (("Location", location),))


@pytest.fixture
def world() -> World:
    """Return servers that respond with 200 at ``/end``."""
    world = World()
    for host in (A, B, C, f"{A}:8443"):
        world.reply(host, "/end", Reply(200, b"here"))
    return world


def ask(world: World, method: str = "GET") -> FinalResponse:
    """Request the start with all headers, and follow the redirects."""
    return now(follow_redirects(client(world.agent), method, URL, HEADERS))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_every_redirect_status_is_followed(world: World, status: int, method: str) -> None:
    """The method stays the same."""
    world.reply(A, "/start", to(f"https://{B}/end", status))
    followed = ask(world, method)
    assert (followed.response.code, followed.url, followed.is_other_origin) == (200, f"https://{B}/end", True)
    assert [seen.method for seen in world.seen] == [method, method]


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("/end?x=%2F&y", f"https://{A}/end?x=%2F&y"),
        ("/artifacts-downloads/../end?a=1/2&b==", f"https://{A}/end?a=1/2&b=="),
        ("end", f"https://{A}/end"),
        ("./other/../end", f"https://{A}/end"),
        (f"//{B}/end", f"https://{B}/end"),
        (f" https://{B}/end ", f"https://{B}/end"),
        (f"https://{B}/end#part", f"https://{B}/end"),
        (f"http://{B}/end", f"http://{B}/end"),
        (f"HTTPS://{A}/end", f"https://{A}/end"),
    ],
)
def test_absolute_and_relative_locations(world: World, location: str, url: str) -> None:
    """A signed query arrives as it was written."""
    world.reply(A, "/start", to(location))
    assert ask(world).response.code == 200
    assert world.seen[-1].url == url


@pytest.mark.parametrize("location", [f"https://{B}/end", f"http://{A}/end", f"https://{A}:8443/end"])
def test_another_origin_gets_no_credentials(world: World, location: str) -> None:
    """Another host, port or scheme is another origin; the other headers are sent."""
    world.reply(A, "/start", to(location))
    assert ask(world).is_other_origin
    assert [seen.authorization for seen in world.seen] == ["Bearer t0ken", None]
    assert [(seen.header("Range"), seen.header("Accept")) for seen in world.seen] == [
        ("bytes=1-2", "a/b")
    ] * 2


def test_the_same_origin_gets_credentials(world: World) -> None:
    """It may be written in another way."""
    world.reply(A, "/start", to(f"https://{A.upper()}.:443/end"))
    world.reply(f"{A}.", "/end", Reply(200))
    assert not ask(world).is_other_origin
    assert [seen.authorization for seen in world.seen] == ["Bearer t0ken", "Bearer t0ken"]


def test_credentials_that_were_dropped_do_not_come_back(world: World) -> None:
    """Not even at the first origin: another one had chosen the URL."""
    world.reply(A, "/start", to(f"https://{B}/on"))
    world.reply(B, "/on", to(URL.replace("start", "end")))
    assert not ask(world).is_other_origin
    assert [seen.authorization for seen in world.seen] == ["Bearer t0ken", None, None]


def test_five_redirects_are_followed(world: World) -> None:
    """No more are."""
    world.reply(A, "/start", *[to(URL)] * MAX_REDIRECTS, to(f"https://{B}/end"))
    with pytest.raises(Unavailable, match="redirects more than 5 times"):
        ask(world)
    assert len(world.seen) == MAX_REDIRECTS + 1
    world.reply(A, "/start", *[to(URL)] * (MAX_REDIRECTS - 1), to(f"https://{B}/end"))
    assert ask(world).response.code == 200


@pytest.mark.parametrize(
    "location",
    [
        "", "ftp://b.example/", "file:///etc/passwd", "https://name:s3cret@b.example/", "https://[::1",
        "https://b.example:99999/", "https://b.example:x/", "https://b example/", "https://b.example/a b",
        "https://b.example/\xe4", "https://b.example/\x7f", "javascript:1",
    ],
)  # fmt: skip
def test_an_invalid_location_is_an_error_of_the_upstream(world: World, location: str) -> None:
    """Nothing is requested."""
    world.reply(A, "/start", to(location))
    with pytest.raises(Unavailable, match="redirects to an invalid URL") as raised:
        ask(world)
    assert (raised.value.status, raised.value.upstream_status) == (502, 307)
    assert len(world.seen) == 1


def test_a_redirect_without_location_is_an_error(world: World) -> None:
    world.reply(A, "/start", Reply(302))
    with pytest.raises(Unavailable, match="invalid URL"):
        ask(world)


def test_the_body_of_a_redirect_is_not_waited_for(world: World) -> None:
    world.reply(A, "/start", evolve(ENDLESS, status=302).having(("Location", f"https://{B}/end")))
    assert ask(world).response.code == 200
    world.agent.flush()
    assert [seen.host for seen in world.abandoned] == [A]


def test_an_unreachable_server_on_the_way_is_named(world: World) -> None:
    world.reply(A, "/start", to(f"https://{B}/end"))
    world.agent.failing[B] = DNSLookupError()
    with pytest.raises(Unreachable, match=B):
        ask(world)


def test_other_3xx_statuses_are_not_followed(world: World) -> None:
    """Such as 300 and 304."""
    for status in (200, 206, 300, 304, 404, 500):
        world.reply(A, "/start", Reply(status, b"", (("Location", f"https://{B}/end"),)))
        assert ask(world).response.code == status
    assert world.asked(B) == []


def test_connections_are_reused_after_redirects() -> None:
    wire = Wire(HTTPConnectionPool(Clock()))
    for _ in range(100):
        outcome = Outcome(follow_redirects(client(wire.agent), "GET", URL, ()))
        wire.send(b"HTTP/1.1 307 See\r\nLocation: /end\r\nContent-Length: 9\r\n\r\nsee there", at=0)
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", at=1)
        assert outcome.get().response.code == 200
    assert len(wire.transports) == 2


def test_the_first_server_gets_the_request_unchanged() -> None:
    world = World({A: lambda seen: Reply(200, seen.url.encode())})
    url = f"https://{A}/v2/a/b?n=1&last=c%2Fd"
    followed = now(follow_redirects(client(world.agent), "GET", url, ()))
    assert (followed.url, followed.is_other_origin) == (url, False)
    assert [seen.url for seen in world.seen] == [url]
