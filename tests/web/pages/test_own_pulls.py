"""A client's own pulls on its page, and the test that waits for one."""

# mypy: allow-untyped-calls

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from attrs import evolve
from twisted.internet.defer import maybeDeferred
from twisted.web.resource import Resource

from dockmirror.client_config.snippet import MirrorAddress, MirroredRegistry
from dockmirror.history.pulls import HistoryError, Pull, PullFilter, PullSums
from dockmirror.history.tracker import AddressDetail
from dockmirror.http.server import HttpSite
from dockmirror.system.networks import NetworkAccess
from dockmirror.web.pages.own_pulls import (
    PATIENCE,
    PullFinder,
    describe_age,
    describe_pull,
    name_image,
)
from dockmirror.web.pages.page import LANGUAGES
from dockmirror.web.pages.resources import PageContext, PageFactory
from dockmirror.web.respond import NetworkFilter
from tests.house import Answer, House
from tests.internet import Internet

ENGLISH = LANGUAGES["en"]
HTML = "Accept: text/html"
CLIENT = "192.168.1.1"
HUB = MirroredRegistry("docker.io", "docker.io", "https://registry-1.docker.io")
NGINX = Pull(
    number=7, began=0, seconds=1.23, client=CLIENT, user="", host="mirror.example", registry="docker.io",
    repository="library/nginx", reference="1.27", digest="", platform="linux/amd64", layers=7,
    cached_layers=5, cached_bytes=48_000_000, upstream_bytes=21_000_000, saved_requests=6, saved_pulls=1,
    outcome="served", reason="",
)  # fmt: skip
MEASURED = "69.0 MB · 7 layers, 5 from the cache · 1.2 s"


@pytest.mark.parametrize(
    ("changes", "name", "words"),
    [
        ({}, "nginx:1.27", f"{MEASURED} · saved 48.0 MB and one of Docker Hub's pulls"),
        ({"saved_pulls": 0}, "nginx:1.27", f"{MEASURED} · saved 48.0 MB"),
        (
            {"repository": "grafana/grafana", "saved_pulls": 2, "seconds": 83.4},
            "grafana/grafana:1.27",
            "69.0 MB · 7 layers, 5 from the cache · 83 s · saved 48.0 MB and 2 of Docker Hub's pulls",
        ),
        (
            {
                "registry": "ghcr.io",
                "repository": "o/r",
                "reference": f"sha256:{'0a' * 32}",
                "cached_bytes": 0,
            },
            "ghcr.io/o/r@sha256:0a0a0a0a…",
            "21.0 MB · 7 layers, 5 from the cache · 1.2 s · saved one of ghcr.io's pulls",
        ),
        (
            {"layers": 1, "cached_layers": 0, "cached_bytes": 0, "saved_pulls": 0},
            "nginx:1.27",
            "21.0 MB · 1 layer, 0 from the cache · 1.2 s · fetched for you, cached for the next pull",
        ),
        ({"outcome": "running"}, "nginx:1.27", "running, 69.0 MB so far · 7 layers, 5 from the cache"),
        (
            {"outcome": "failed", "reason": "the upstream answered 404 MANIFEST_UNKNOWN"},
            "nginx:1.27",
            "failed: Docker Hub has no such image or tag: check the name, and log in if it is private"
            " (the upstream answered 404 MANIFEST_UNKNOWN)",
        ),
        ({"outcome": "failed", "reason": "It is odd."}, "nginx:1.27", "failed: It is odd"),
        ({"outcome": "failed"}, "nginx:1.27", "failed: the reason is not known"),
    ],
)
def test_a_pull_is_described_in_words(changes: dict[str, Any], name: str, words: str) -> None:
    pull = evolve(NGINX, **changes)
    assert (name_image(pull), describe_pull(pull, ENGLISH)) == (name, words)
    assert (" 秒 · " in describe_pull(pull, LANGUAGES["zh"])) == (" s · " in words)


@pytest.mark.parametrize(
    ("reason", "key"),
    [
        ("the upstream answered 401", "login"),
        ("this mirror requires a username and password", "login"),
        ("the upstream answered 429 TOOMANYREQUESTS", "limit"),
        ("library/x may not be pulled here: it is not in 'allow'", "denied"),
        ("registry-1.docker.io did not answer in time", "unreachable"),
        ("No space left on device", "disk"),
        ("sha256:… was recalled by the operator of this mirror: it sends passwords by TLS", "refused"),
        ("nginx:1 is refused by the policy server: CVE-1 in the disk driver; use another version", "refused"),
        ("nginx:1 is not signed by a trusted signer: its certificate ended; use a signed one", "refused"),
        ("sha256:… is not known: no tag of the repository was served as this digest", "refused"),
    ],
)
@pytest.mark.parametrize("code", LANGUAGES)
def test_failures_are_explained_and_quoted(reason: str, key: str, code: str) -> None:
    say = LANGUAGES[code]
    words = describe_pull(evolve(NGINX, outcome="failed", reason=reason), say)
    assert say(f"failure.{key}", upstream="Docker Hub") in words
    assert reason in words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-5, "just now"), (59, "just now"), (60, "1 min ago"), (3600, "1 h ago"), (200_000, "2 d ago")],
)
def test_ages_are_rough(seconds: float, words: str) -> None:
    assert describe_age(seconds, ENGLISH) == words


class Shelf:
    """A history with these pulls, newest first."""

    def __init__(self, *pulls: Pull) -> None:
        self.held = list(pulls)
        self.error: HistoryError | None = None

    def pulls(self, filter: PullFilter, limit: int = 100, after: int = 0) -> Sequence[Pull]:
        if self.error:
            raise self.error
        matching = (each for each in self.held if filter.client in ("", each.client))
        return [each for each in matching if filter.user in ("", each.user)][:limit]

    def sums(self, by: str, filter: PullFilter, limit: int = 1000) -> Sequence[PullSums]:
        raise NotImplementedError


class Pages:
    """A mirror that has nothing but its pages, and this history."""

    def __init__(self, shelf: Shelf | None, addresses: AddressDetail = "full") -> None:
        self.house = House(Internet())
        clock = self.house.clock
        clock.advance(1_000_000)
        self.shelf = shelf
        mirror = MirrorAddress("http", "mirror.example", (HUB,))
        finder = PullFinder(shelf, addresses, maybeDeferred)
        factory = PageFactory(PageContext(lambda *_: mirror, lambda *_: mirror, finder, clock))
        root = Resource()
        for name, resource in factory.resources().items():
            root.putChild(name.encode(), resource)
        self.house.site = HttpSite(NetworkFilter(root, NetworkAccess()), clock)

    def get(self, path: str, *headers: str) -> Answer:
        return self.house.get("mirror.example", path, *headers)

    def html(self, path: str = "/") -> str:
        return self.get(path, HTML).body.decode()


def test_pulls_are_on_the_page_in_the_text_and_in_the_json() -> None:
    pages = Pages(Shelf(evolve(NGINX, began=999_400)))
    assert f'<code title="docker.io/library/nginx 1.27">nginx:1.27</code> · {MEASURED}' in pages.html()
    row = f"    10 min ago  nginx:1.27  {MEASURED} · saved 48.0 MB and one of Docker Hub's pulls\n"
    assert pages.get("/").body.decode().endswith(f"Your pulls, from {CLIENT}:\n\n{row}")
    assert pages.get("/pulls").body.decode() == row
    (pull,) = pages.get("/", "Accept: application/json").json["pulls"]
    assert (pull["repository"], pull["began"]) == ("library/nginx", "1970-01-12T13:36:40.000+00:00")


def test_a_client_sees_neither_other_addresses_nor_users() -> None:
    pages = Pages(Shelf(evolve(NGINX, client="192.168.1.2"), evolve(NGINX, user="alice")))
    assert "nginx" not in pages.html()
    assert "None yet from 192.168.1.1" in pages.html()


@pytest.mark.parametrize(
    ("addresses", "words"),
    [("network", "keeps networks instead of addresses"), ("none", "does not keep the addresses")],
)
def test_a_history_without_addresses_says_that_it_does_not_know(addresses: AddressDetail, words: str) -> None:
    pages = Pages(Shelf(evolve(NGINX, client="")), addresses)
    assert words in pages.html()
    assert "nginx" not in pages.html()
    assert pages.get("/pulls").status == 404
    assert pages.get("/", "Accept: application/json").json["pulls"] is None


def test_a_mirror_without_a_history_or_with_a_broken_one_says_so() -> None:
    assert "keeps no history" in Pages(None).html("/?test=999999")
    pages = Pages(Shelf())
    assert pages.shelf is not None
    pages.shelf.error = HistoryError("the file is broken")
    assert "cannot be read now" in pages.html()


def test_names_of_images_are_escaped() -> None:
    html = Pages(Shelf(evolve(NGINX, reference="<script>", outcome="failed", reason="<b>"))).html()
    assert "nginx:&lt;script&gt;" in html
    assert "<b>" not in html


def test_a_test_counts_pulls_from_its_beginning() -> None:
    answer = Pages(Shelf()).get("/?test&lang=zh")
    assert (answer.status, answer["Location"]) == (303, "/?test=1000000&lang=zh#test")


@pytest.mark.parametrize(
    ("age", "pulls", "state", "words"),
    [
        (1, [], "waiting", "Waiting for a pull from 192.168.1.1"),
        (1, [evolve(NGINX, began=999_000)], "waiting", "Docker: <code>docker pull hello-world</code>"),
        (PATIENCE, [], "late", "must list <code>http://mirror.example</code> as a registry mirror"),
        (PATIENCE, [evolve(NGINX, began=999_990, outcome="running")], "running", "sees your pull"),
        (5, [evolve(NGINX, began=999_999)], "served", "saved 48.0 MB and one of Docker Hub"),
        (5, [evolve(NGINX, began=999_999, outcome="failed", reason="401")], "failed", "asks for a login"),
    ],
)
def test_a_test_says_what_it_saw(age: float, pulls: list[Pull], state: str, words: str) -> None:
    html = Pages(Shelf(*pulls)).html(f"/?test={1_000_000 - age:.0f}")
    result = html.partition('<div id="test-result" role="status">')[2].partition("</section>")[0]
    assert result.startswith(f'<div class="result {state}">')
    assert words in result


@pytest.mark.parametrize("began", ["1", "1000001", "1e6", "-1", "9" * 400, "%C2%B2"])
def test_a_test_of_another_time_is_none(began: str) -> None:
    assert '<div class="result none">' in Pages(Shelf()).html(f"/?test={began}")


def test_an_open_page_is_told_what_changes() -> None:
    shelf = Shelf()
    pages = Pages(shelf)
    viewer = pages.house.connect().ask("GET", "mirror.example", "/pulls/events?test=999999")
    pages.house.pass_time(1, 1)
    shelf.held.append(evolve(NGINX, began=1_000_001, outcome="running"))
    pages.house.pass_time(1, 1)
    shelf.held[:] = [evolve(NGINX, began=1_000_001)]
    pages.house.pass_time(1, 1)
    viewer.leave()
    data: bytes = viewer.transport.value().partition(b"\r\n\r\n")[2]
    lines = b"".join(data.split(b"\r\n")[1::2]).splitlines()
    events = [json.loads(line[6:]) for line in lines if line.startswith(b"data: ")]
    states = ["result waiting", "result running", "result served"]
    assert [state in event["test"] for event, state in zip(events, states, strict=True)] == [True] * 3
    assert ["nginx" in event["pulls"] for event in events] == [False, True, True]


def test_one_network_leaves_live_pages_to_others() -> None:
    house = Pages(Shelf()).house

    def connect(peer: str) -> bytes:
        value: bytes = house.connect(peer).ask("GET", "mirror.example", "/pulls/events").transport.value()
        return value[:12]

    assert [connect("192.168.1.1") for _ in range(17)] == [b"HTTP/1.1 200"] * 16 + [b"HTTP/1.1 503"]
    assert connect("192.168.1.2") == b"HTTP/1.1 200"


def test_a_script_learns_when_the_last_byte_was_pulled() -> None:
    """A pull that is repeated within a minute is the same one, with another end."""
    assert Pages(Shelf()).get("/pulls?latest").body == b"0.000\n"
    assert Pages(Shelf(evolve(NGINX, began=5), NGINX)).get("/pulls?latest").body == b"6.230\n"
