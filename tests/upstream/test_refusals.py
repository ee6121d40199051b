"""What an upstream says instead of giving what was asked for."""

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
from dockmirror.upstream.refusals import is_web_page, read_refusal
from tests.fake_registry import error
from tests.fakes import DEAD, ENDLESS, Reply, World
from tests.stacks import client, now

URL = "https://registry.example/v2/x"
HTML = (("Content-Type", "text/html; charset=utf-8"),)


def refused(reply: Reply, unknown: type[RegistryError] = NameUnknown) -> RegistryError:
    """The error that is made of a reply."""
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
    """Whatever the body is; its beginning is the detail of an error in the specification's format."""
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
def test_a_bare_404_means_what_was_asked_for(unknown: type[RegistryError]) -> None:
    """A file server's page says no more than its status."""
    assert type(refused(Reply(404, b"<html>", HTML), unknown)) is unknown


def test_a_404_with_a_code_means_what_the_code_says() -> None:
    """The registry knows better what is not there."""
    assert isinstance(refused(error(404, "NAME_UNKNOWN"), BlobUnknown), NameUnknown)


def test_challenges_come_along() -> None:
    """Of all lines, and several in a line."""
    reply = error(401, "UNAUTHORIZED").having(
        ("WWW-Authenticate", 'Basic realm="a, b", Bearer realm="https://r/t",service=unquoted'),
        ("WWW-Authenticate", "Negotiate"),
    )
    assert [(c.scheme, dict(c.parameters)) for c in refused(reply).challenges] == [
        ("Basic", {"realm": "a, b"}),
        ("Bearer", {"realm": "https://r/t", "service": "unquoted"}),
        ("Negotiate", {}),
    ]


def test_retry_after_comes_along() -> None:
    """As it was written."""
    raised = refused(error(429, "TOOMANYREQUESTS").having(("Retry-After", "17")))
    assert isinstance(raised, TooManyRequests)
    assert raised.retry_after == "17"


def test_an_unsatisfiable_range_tells_the_size() -> None:
    """So that a client may ask for another."""
    raised = refused(Reply(416, b"", (("Content-Range", "bytes */1000"),)))
    assert isinstance(raised, RangeInvalid)
    assert (raised.content_size, raised.upstream_status) == (1000, 416)


def test_the_body_of_what_is_no_refusal_is_not_waited_for() -> None:
    """A long one is left."""
    world = World()
    asking = client(world.agent)
    world.reply("registry.example", "/v2/x", evolve(ENDLESS, status=300))
    now(read_refusal(asking, now(asking.request("GET", URL))))
    world.agent.flush()
    assert len(world.abandoned) == 1


@pytest.mark.parametrize("status", [204, 300, 307])
def test_what_is_no_refusal_is_of_no_use(status: int) -> None:
    """An answer that nobody can do anything with is the upstream's fault: 502."""
    assert (refused(Reply(status)).status, refused(Reply(status)).upstream_status) == (502, status)


@pytest.mark.parametrize(("status", "kept"), [(499, 499), (520, 520), (599, 599), (600, 502), (999, 502)])
def test_statuses_that_no_standard_has(status: int, kept: int) -> None:
    """Proxies in front of upstreams make up some; a status that HTTP cannot mean is the upstream's fault."""
    assert refused(Reply(status)).status == kept


@pytest.mark.parametrize("reply", [Reply(403, b"x" * 100).cut(10), Reply(403, b"x" * 70_000)])
def test_a_body_that_cannot_be_read_is_passed_over(reply: Reply) -> None:
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
def test_pages(kind: str | None, page: bool) -> None:
    """Documents for people, and a file server's, are none of a registry's."""
    world = World()
    world.reply("registry.example", "/v2/x", Reply(200, b"", (("Content-Type", kind),) if kind else ()))
    assert is_web_page(now(client(world.agent).request("GET", URL))) is page


def test_a_server_that_dies_is_no_refusal() -> None:
    """It is raised by whoever asked."""
    with pytest.raises(Unavailable):
        refused(DEAD)
