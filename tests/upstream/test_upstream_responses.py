"""Redirects of an upstream, and errors for its refusals."""

# mypy: allow-untyped-calls

from __future__ import annotations

import json

import pytest
from attrs import evolve
from twisted.internet.error import DNSLookupError
from twisted.internet.task import Clock
from twisted.web.client import HTTPConnectionPool

from dockmirror.oci.errors import (
    BlobUnknown,
    Denied,
    ManifestUnknown,
    NameUnknown,
    RangeInvalid,
    RegistryError,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    Unreachable,
    Unsupported,
)
from dockmirror.upstream.upstream_responses import (
    MAX_REDIRECTS,
    FinalResponse,
    follow_redirects,
    is_web_page,
    read_refusal,
)
from tests.fake_registry import error
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
    others = [(seen.header("Range"), seen.header("Accept")) for seen in world.seen]
    assert others == [("bytes=1-2", "a/b")] * 2


@pytest.mark.parametrize(
    ("hops", "is_other_origin", "authorizations"),
    [
        ([f"https://{A.upper()}.:443/end"], False, ["Bearer t0ken", "Bearer t0ken"]),
        ([f"https://{B}/on", f"https://{A}/end"], False, ["Bearer t0ken", None, None]),
    ],
    ids=["the same origin, spelt differently", "there and back"],
)
def test_dropped_credentials_do_not_come_back(
    world: World, hops: list[str], is_other_origin: bool, authorizations: list[str | None]
) -> None:
    """Not even at the first origin: another one had chosen the URL."""
    world.reply(f"{A}.", "/end", Reply(200))
    for (host, path), target in zip(((A, "/start"), (B, "/on")), hops, strict=False):
        world.reply(host, path, to(target))
    assert ask(world).is_other_origin is is_other_origin
    assert [seen.authorization for seen in world.seen] == authorizations


def test_five_redirects_are_followed(world: World) -> None:
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
    """Nothing is requested; a redirect without a location is an error, too."""
    for reply in (to(location), Reply(307)):
        world.reply(A, "/start", reply)
        world.seen.clear()
        with pytest.raises(Unavailable, match="redirects to an invalid URL") as raised:
            ask(world)
        assert (raised.value.status, raised.value.upstream_status) == (502, 307)
        assert len(world.seen) == 1


def test_the_body_of_a_redirect_is_not_waited_for(world: World) -> None:
    """A server on the way that cannot be reached is named."""
    world.reply(A, "/start", evolve(ENDLESS, status=302).having(("Location", f"https://{B}/end")))
    assert ask(world).response.code == 200
    world.agent.flush()
    assert [seen.host for seen in world.abandoned] == [A]
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


REFUSED = "https://registry.example/v2/x"
HTML = (("Content-Type", "text/html; charset=utf-8"),)


def refused(reply: Reply, unknown: type[RegistryError] = NameUnknown) -> RegistryError:
    """Return the error for a reply."""
    world = World()
    world.reply("registry.example", "/v2/x", reply)
    asking = client(world.agent)
    raised = now(read_refusal(asking, now(asking.request("GET", REFUSED)), unknown))
    world.agent.flush()
    assert len(world.abandoned) == (reply.end != "whole")
    return raised


@pytest.mark.parametrize(
    ("status", "row"),
    [
        (400, RegistryError),
        (401, Unauthorized),
        (403, Denied),
        (405, Unsupported),
        (418, RegistryError),
        (429, TooManyRequests),
        (451, RegistryError),
        (500, Unavailable),
        (503, Unavailable),
    ],
)
@pytest.mark.parametrize("body", [b"", b"<html><h1>Not today</h1>", b"{", b"[]", b'{"errors":"no"}', b"\xff"])
def test_a_status_is_kept(status: int, row: type[RegistryError], body: bytes) -> None:
    """The beginning of any body is the detail of an error in the specification's format."""
    raised = refused(Reply(status, body, HTML))
    assert type(raised) is row
    assert (raised.status, raised.upstream_status) == (status, status)
    (entry,) = json.loads(raised.body())["errors"]
    assert entry["code"] == row.code
    assert entry["message"] == f"the upstream answered {status}"
    assert entry["detail"] == (body.decode("utf-8", "replace") or None)


def test_an_upstreams_own_errors_are_kept() -> None:
    """All of them, word by word."""
    body = b'{"errors":[{"code":"DENIED","message":"no","detail":[1]},{"code":"X-1","message":"also"}]}'
    raised = refused(Reply(403, body))
    assert isinstance(raised, Denied)
    assert json.loads(raised.body()) == {
        "errors": [
            {"code": "DENIED", "message": "no", "detail": [1]},
            {"code": "X-1", "message": "also", "detail": None},
        ]
    }


@pytest.mark.parametrize("unknown", [BlobUnknown, ManifestUnknown, NameUnknown])
def test_a_bare_404_has_the_code_of_the_target(unknown: type[RegistryError]) -> None:
    """A file server's page says no more than its status; a code of the upstream is kept."""
    assert type(refused(Reply(404, b"<html>", HTML), unknown)) is unknown
    assert type(refused(error(404, "NAME_UNKNOWN"), unknown)) is NameUnknown


def test_details_of_a_refusal_are_kept() -> None:
    """The challenges of all lines, the time to wait, the size of a blob for another range."""
    raised = refused(
        error(401, "UNAUTHORIZED").having(
            ("WWW-Authenticate", 'Basic realm="a, b", Bearer realm="https://r/t",service=unquoted'),
            ("WWW-Authenticate", "Negotiate"),
        )
    )
    assert [(c.scheme, c.get("service")) for c in raised.challenges] == [
        ("Basic", ""), ("Bearer", "unquoted"), ("Negotiate", ""),
    ]  # fmt: skip
    assert refused(error(429, "TOOMANYREQUESTS").having(("Retry-After", "17"))).retry_after == "17"
    raised = refused(Reply(416, b"", (("Content-Range", "bytes */1000"),)))
    assert isinstance(raised, RangeInvalid)
    assert (raised.content_size, raised.upstream_status) == (1000, 416)


@pytest.mark.parametrize(
    ("status", "expected"),
    [(204, 502), (300, 502), (307, 502), (499, 499), (520, 520), (599, 599), (600, 502), (999, 502)],
)
def test_unknown_statuses_are_kept(status: int, expected: int) -> None:
    """Proxies in front of upstreams invent some; one that is no refusal is the upstream's fault."""
    raised = refused(Reply(status))
    assert (raised.status, raised.upstream_status) == (expected, status)
    if not 400 <= status < 600:
        assert refused(evolve(ENDLESS, status=status)).status == expected, "the body is not waited for"


@pytest.mark.parametrize("reply", [Reply(403, b"x" * 100).cut(10), Reply(403, b"x" * 70_000)])
def test_an_unreadable_body_is_ignored(reply: Reply) -> None:
    """One that breaks off, and one that is too long."""
    raised = refused(reply)
    assert isinstance(raised, Denied)
    assert json.loads(raised.body())["errors"][0]["detail"] is None


@pytest.mark.parametrize(
    ("kind", "page"),
    [
        ("text/html", True),
        ("TEXT/HTML;charset=x", True),
        ("application/xhtml+xml", True),
        ("application/xml", True),
        ("application/json", False),
        ("application/vnd.oci.image.index.v1+json", False),
        (None, False),
    ],
)
def test_web_pages_are_recognised(kind: str | None, page: bool) -> None:
    world = World()
    world.reply("registry.example", "/v2/x", Reply(200, b"", (("Content-Type", kind),) if kind else ()))
    assert is_web_page(now(client(world.agent).request("GET", REFUSED))) is page
