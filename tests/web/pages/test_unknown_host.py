"""A host that is none of the mirror's, as browsers and programs see it."""

# mypy: allow-untyped-calls

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from dockmirror.config.known_registries import KNOWN
from tests.house import House
from tests.internet import Internet

HTML = "Accept: text/html,application/xhtml+xml,*/*;q=0.8"
HOST = "typo.example:8080"


@pytest.fixture
def house() -> House:
    """The mirror in front of the well-known registries."""
    return House(Internet())


@pytest.mark.parametrize("path", ["/", "/client/docker", "/what/ever"])
def test_a_browser(house: House, path: str) -> None:
    """Sees a page that says which names there are, each a link, on the port by which it came."""
    answer = house.get(HOST, path, HTML)
    assert (answer.status, answer["Content-Type"]) == (404, "text/html; charset=utf-8")
    assert str(answer["Content-Security-Policy"]).startswith("default-src 'none';")
    root = ElementTree.fromstring(answer.body.decode().removeprefix("<!DOCTYPE html>"))  # noqa: S314
    links = [str(each.get("href")) for each in root.iter("a")]
    assert links[0] == "http://mirror.example:8080/"
    assert {
        f"http://{each.name}.mirror.example:8080/" for each in KNOWN if each.name != "docker-staging"
    } == set(links[1:-1])
    assert [each.text for each in root.iter("h1")] == [HOST]
    assert 'names = ["typo.example"]' in "".join(root.itertext())


def test_without_a_domain() -> None:
    """It is localhost, below which nothing is told of."""
    body = House(Internet(), domain="localhost").get(HOST, "/", HTML).body.decode()
    assert "http://localhost:8080/" in body
    assert "docker.localhost" not in body


def test_in_another_language(house: House) -> None:
    """The page uses the browser's language."""
    assert '<html lang="zh">' in house.get(HOST, "/", HTML, "Accept-Language: zh-CN").body.decode()


@pytest.mark.parametrize(
    "path", ["/v2", "/v2/", "/v2/library/busybox/manifests/1", "/docker.io/v2/", "/v2/auth"]
)
def test_a_registrys_paths(house: House, path: str) -> None:
    """Registry paths never get a page, whatever the client accepts."""
    assert house.get(HOST, path, HTML).error == (404, "UNSUPPORTED")


@pytest.mark.parametrize("accept", [(), ("Accept: */*",), ("Accept: application/json",)])
def test_a_program(house: House, accept: tuple[str, ...]) -> None:
    """Programs get a sentence, which clients print, and a table of hosts."""
    answer = house.get(HOST, "/", *accept)
    assert answer.error == (404, "UNSUPPORTED")
    assert answer.message == (
        "this mirror does not serve the host typo.example:8080; use mirror.example:8080 or another of 'hosts'"
    )
    assert answer.json["hosts"][:2] == ["mirror.example:8080", "docker.mirror.example:8080"]
    assert b"https://" not in answer.body
    assert "Accept" in str(answer["Vary"])


def test_whatever_it_is_called(house: House) -> None:
    """It is text; and a query that cannot be read is no reason for a page."""
    assert b"<script>alert" not in house.get("<script>alert(1)</script>", "/", HTML).body
    assert house.get(HOST, "/?" + "a&" * 100, HTML)["Content-Type"] == "application/json"
    assert "a host without a name" in house.get("", "/").message
