"""What clients have asked for of late."""

# mypy: allow-untyped-calls

from __future__ import annotations

from typing import Any

from dockmirror.config import load
from dockmirror.web.access import Client
from tests.house import House
from tests.internet import Internet

HOST, TEXT = "mirror.example", "Accept: application/json"


def seen(house: House, peer: str) -> Any:
    """What a client is shown of its own requests."""
    return house.connect(peer).ask("GET", HOST, "/", TEXT).answer.json["requests"]


def test_each_sees_its_own() -> None:
    """By its address, the newest first."""
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


def test_no_secrets() -> None:
    """Neither the query nor a header of what was asked is kept."""
    house = House(Internet())
    house.connect("10.0.0.1").ask("GET", HOST, "/v2/?password=s3cret", "Authorization: Basic czNjcmV0")
    answer = house.connect("10.0.0.1").ask("GET", HOST, "/", "Accept: text/html").answer
    assert b"/v2/" in answer.body
    assert b"s3cret" not in answer.body
    assert b"czNjcmV0" not in answer.body


def test_pages_do_not_count() -> None:
    """Only what a registry's client asks for does."""
    house = House(Internet())
    for path in ("/", "/client/docker", "/healthz", "/nothing"):
        house.connect("10.0.0.1").ask("GET", HOST, path)
    assert seen(house, "10.0.0.1") == []


def test_a_client_behind_a_proxy() -> None:
    """Is the one that the proxy names, and not the proxy."""
    house = House(Internet(), trust_proxy=["127.0.0.1"])
    house.connect("127.0.0.1").ask("GET", HOST, "/v2/", "X-Forwarded-For: 10.0.0.1")
    assert len(seen(house, "10.0.0.1")) == 1
    assert seen(house, "127.0.0.1") == []


def test_who_was_not_let_in() -> None:
    """Leaves nothing behind."""
    house = House(Internet())
    house.connect("8.8.8.8").ask("GET", HOST, "/v2/")
    assert not house.serving._recent._seen


def test_bounds() -> None:
    """20 requests of a client, 500 clients, and 300 characters of a path."""
    house = House(Internet())
    for number in range(25):
        house.connect("10.0.0.1").ask("GET", HOST, f"/v2/{number}{'x' * 400}")
    listed = seen(house, "10.0.0.1")
    assert len(listed) == 20
    assert listed[0]["path"].startswith("/v2/24x")
    assert {len(each["path"]) for each in listed} == {300}
    for number in range(500):
        house.connect(f"10.1.{number // 250}.{number % 250}").ask("GET", HOST, "/v2/")
    assert seen(house, "10.0.0.1") == []
    assert len(seen(house, "10.1.0.0")) == 1


def test_without_an_address() -> None:
    """Nothing is shown: behind a UNIX socket all look alike."""
    house = House(Internet())
    assert house.serving._recent.of(Client(None, "http", HOST)) == ()


def test_new_settings_forget_nothing() -> None:
    """They change what is served, not what was asked."""
    house = House(Internet())
    house.connect("10.0.0.1").ask("GET", HOST, "/v2/")
    house.serving.serve(load({"domain": HOST}, {}))
    assert len(seen(house, "10.0.0.1")) == 1
