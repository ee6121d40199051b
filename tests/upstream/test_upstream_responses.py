"""Errors for the refusals of an upstream."""

from __future__ import annotations

import json

import pytest
from attrs import evolve

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
    Unsupported,
)
from dockmirror.upstream.upstream_responses import is_web_page, read_refusal
from tests.fake_registry import error
from tests.fakes import DEAD, ENDLESS, Reply, World
from tests.stacks import client, now

URL = "https://registry.example/v2/x"
HTML = (("Content-Type", "text/html; charset=utf-8"),)


def refused(reply: Reply, unknown: type[RegistryError] = NameUnknown) -> RegistryError:
    """Return the error for a reply."""
    world = World()
    world.reply("registry.example", "/v2/x", reply)
    asking = client(world.agent)
    return now(read_refusal(asking, now(asking.request("GET", URL)), unknown))


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
    """A file server's page says no more than its status."""
    assert type(refused(Reply(404, b"<html>", HTML), unknown)) is unknown


def test_a_404_with_a_code_keeps_it() -> None:
    assert isinstance(refused(error(404, "NAME_UNKNOWN"), BlobUnknown), NameUnknown)


def test_challenges_are_kept() -> None:
    """A response may have several lines, with several challenges in each."""
    reply = error(401, "UNAUTHORIZED").having(
        ("WWW-Authenticate", 'Basic realm="a, b", Bearer realm="https://r/t",service=unquoted'),
        ("WWW-Authenticate", "Negotiate"),
    )
    assert [(c.scheme, dict(c.parameters)) for c in refused(reply).challenges] == [
        ("Basic", {"realm": "a, b"}),
        ("Bearer", {"realm": "https://r/t", "service": "unquoted"}),
        ("Negotiate", {}),
    ]


def test_retry_after_is_kept() -> None:
    raised = refused(error(429, "TOOMANYREQUESTS").having(("Retry-After", "17")))
    assert isinstance(raised, TooManyRequests)
    assert raised.retry_after == "17"


def test_a_416_has_the_size() -> None:
    """A client may then request another range."""
    raised = refused(Reply(416, b"", (("Content-Range", "bytes */1000"),)))
    assert isinstance(raised, RangeInvalid)
    assert (raised.content_size, raised.upstream_status) == (1000, 416)


def test_the_body_of_an_unusable_response_is_not_waited_for() -> None:
    world = World()
    asking = client(world.agent)
    world.reply("registry.example", "/v2/x", evolve(ENDLESS, status=300))
    now(read_refusal(asking, now(asking.request("GET", URL))))
    world.agent.flush()
    assert len(world.abandoned) == 1


@pytest.mark.parametrize("status", [204, 300, 307])
def test_an_unusable_response_is_502(status: int) -> None:
    assert (refused(Reply(status)).status, refused(Reply(status)).upstream_status) == (502, status)


@pytest.mark.parametrize(("status", "kept"), [(499, 499), (520, 520), (599, 599), (600, 502), (999, 502)])
def test_unknown_statuses_are_kept(status: int, kept: int) -> None:
    """Proxies in front of upstreams invent some; an invalid one is the upstream's fault."""
    assert refused(Reply(status)).status == kept


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
    assert is_web_page(now(client(world.agent).request("GET", URL))) is page


def test_a_lost_connection_is_no_refusal() -> None:
    with pytest.raises(Unavailable):
        refused(DEAD)
