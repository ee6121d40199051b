"""Recent requests per client."""

# mypy: allow-untyped-calls

from __future__ import annotations

from ipaddress import ip_address
from mmap import mmap
from types import SimpleNamespace
from typing import Any

from twisted.internet.task import Clock

from dockmirror.config.load import load
from dockmirror.http.access import ClientAddress
from dockmirror.web.recent_requests import SIZE, RecentRequests
from tests.house import House
from tests.internet import Internet

HOST, TEXT = "mirror.example", "Accept: application/json"


def seen(house: House, peer: str) -> Any:
    """Return the requests that a client is shown."""
    return house.connect(peer).ask("GET", HOST, "/", TEXT).answer.json["requests"]


def test_each_sees_its_own() -> None:
    """Each address sees its own requests, newest first."""
    house = House(Internet())
    for peer, path in (
        ("10.0.0.1", "/v2/"),
        ("10.0.0.1", "/v2/x/tags/list"),
        ("10.0.0.2", "/v2/y/tags/list"),
    ):
        house.connect(peer).ask("GET", HOST, path)
    assert [each["path"] for each in seen(house, "10.0.0.1")] == ["/v2/x/tags/list", "/v2/"]
    assert [each["path"] for each in seen(house, "10.0.0.2")] == ["/v2/y/tags/list"]
    assert seen(house, "10.0.0.3") == []


def test_the_reason_of_a_refusal_is_shown() -> None:
    """The JSON, the text and the page have the sentence that the client got."""
    house = House(Internet())
    message = house.connect("10.0.0.1").ask("GET", HOST, "/docker.io/v2/A/tags/list").answer.message
    (entry,) = seen(house, "10.0.0.1")
    assert entry["reason"] == message
    for accept in ("text/plain", "text/html"):
        answer = house.connect("10.0.0.1").ask("GET", HOST, "/", f"Accept: {accept}").answer
        assert f"refused: {message}" in answer.body.decode()


def test_no_secrets() -> None:
    """Neither the query nor a header of what was asked is kept."""
    house = House(Internet())
    house.connect("10.0.0.1").ask("GET", HOST, "/v2/?password=s3cret", "Authorization: Basic czNjcmV0")
    answer = house.connect("10.0.0.1").ask("GET", HOST, "/", "Accept: text/html").answer
    assert b"/v2/" in answer.body
    assert b"s3cret" not in answer.body
    assert b"czNjcmV0" not in answer.body


def test_pages_do_not_count() -> None:
    """Only registry requests are recorded."""
    house = House(Internet())
    for path in ("/", "/client/docker", "/healthz", "/nothing"):
        house.connect("10.0.0.1").ask("GET", HOST, path)
    assert seen(house, "10.0.0.1") == []


def test_a_client_behind_a_proxy() -> None:
    """Behind a trusted proxy, the client that it names is recorded."""
    house = House(Internet(), trust_proxy=["127.0.0.1"])
    house.connect("127.0.0.1").ask("GET", HOST, "/v2/", "X-Forwarded-For: 10.0.0.1")
    assert len(seen(house, "10.0.0.1")) == 1
    assert seen(house, "127.0.0.1") == []


def test_who_was_not_let_in() -> None:
    """Leaves nothing behind."""
    house = House(Internet())
    house.connect("8.8.8.8").ask("GET", HOST, "/v2/")
    assert house.watched.recent.list_for(ClientAddress(ip_address("8.8.8.8"), "http", HOST)) == ()


def test_bounds() -> None:
    """20 requests of a client, and 300 characters of a path."""
    house = House(Internet())
    for number in range(25):
        house.connect("10.0.0.1").ask("GET", HOST, f"/v2/{number}{'x' * 400}")
    listed = seen(house, "10.0.0.1")
    assert len(listed) == 20
    assert listed[0]["path"].startswith("/v2/24x")
    assert {len(each["path"]) for each in listed} == {300}


def test_there_is_no_end_of_clients() -> None:
    """Among clients that share slots, the least recently seen one is evicted."""
    clock = Clock()
    recent = RecentRequests(clock, memoryview(mmap(-1, SIZE // 512 * 8)))
    clients = [ClientAddress(ip_address(f"10.0.0.{number}"), "http", HOST) for number in range(10)]
    for client in clients:
        clock.advance(1)
        recent(ended(client))
    assert [len(recent.list_for(client)) for client in clients] == [0, 0, *[1] * 8]


def test_processes_share_it() -> None:
    """Processes with the same memory see each other's requests; the longest record fits."""
    memory = mmap(-1, SIZE)
    ours, theirs = (RecentRequests(Clock(), memoryview(memory)) for _ in range(2))
    client = ClientAddress(ip_address("2001:db8::1"), "http", "\N{SNOWMAN}" * 300, "bob")
    ours(ended(client, path=b"/v2/" + b"\xff" * 1000, method=b"M" * 5000))
    (seen,) = theirs.list_for(client)
    assert (seen.path, seen.method) == ("/v2/" + "\N{REPLACEMENT CHARACTER}" * 96, "M" * 20)
    assert theirs.list_for(ClientAddress(client.address, "http", HOST, "alice")) == ()


def ended(client: ClientAddress, path: bytes = b"/v2/", method: bytes = b"GET") -> Any:
    """A request of that client that has ended."""
    return SimpleNamespace(
        admitted_client=client,
        path=path,
        method=method,
        code=200,
        sentLength=2,
        upstream_status=None,
        is_cut_off=False,
        reason=None,
    )


def test_without_an_address() -> None:
    """Nothing is shown: behind a UNIX socket all look alike."""
    house = House(Internet())
    assert house.watched.recent.list_for(ClientAddress(None, "http", HOST)) == ()


def test_new_settings_forget_nothing() -> None:
    """They change what is served, not what was asked."""
    house = House(Internet())
    house.connect("10.0.0.1").ask("GET", HOST, "/v2/")
    house.serving.apply(load({"domain": HOST}, {}))
    assert len(seen(house, "10.0.0.1")) == 1
