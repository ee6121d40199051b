"""Upstreams that fail and lie during a push: the client's result, and the content at the registry."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest

from tests.integration.parts.chain import Chain
from tests.integration.parts.images import artifact
from tests.integration.parts.process import wait_until
from tests.integration.parts.server import Exchange, Server

from .pushing import TAKEN, Answer, Fault, Push, at
from .rows import Record, hardship
from .trial import black_hole, stopped
from .wire import answers, resets_after, stops_taking

pytestmark = pytest.mark.integration

SIZE = 8_000_000
"""More than what lies in sockets."""
HALF = SIZE // 2
GATEWAY, LATE = "502 UNAVAILABLE", "504 UNAVAILABLE"


@dataclass(frozen=True)
class Row:
    """A fault and its result for the client."""

    name: str
    fault: Fault
    gets: str
    chunked: bool = False


class _Elsewhere(Exchange):
    """Another host that takes bodies, and says which requests had credentials."""

    elsewhere: Elsewhere

    def do_PATCH(self) -> None:
        authorized = "Authorization" in self.headers or "Cookie" in self.headers
        self.elsewhere.requests.append((self.command, authorized))
        forwarded = self.elsewhere.chain.registry.plain.bare(
            self.command, self.path, self.body(), self.elsewhere.headers
        )
        location = urlsplit(forwarded.headers["Location"])
        self.answer(forwarded.status, b"", Location=f"{location.path}?{location.query}")

    do_PUT = do_PATCH


class Elsewhere(Server):
    """A host to which the registry sends its clients, and which speaks to the registry for them."""

    def __init__(self, chain: Chain, headers: dict[str, str]) -> None:
        class Asked(_Elsewhere):
            elsewhere = self

        super().__init__("127.0.0.4", Asked)
        self.chain = chain
        self.headers = headers
        self.requests: list[tuple[str, bool]] = []


def _leads(to: str, status: int = 307, *, early: bool = False) -> Answer:
    return answers(status, early=early, Location=to)


@contextmanager
def _redirect_to_itself(push: Push) -> Iterator[None]:
    """Redirect to another URL of the same upload, which takes it."""

    def moved(exchange: Exchange) -> None:
        exchange.body()
        exchange.answer(307, Location=f"{exchange.path}&moved=1")

    def meddle(exchange: Exchange) -> bool:
        meddles = exchange.command == "PATCH" and "moved" not in exchange.path
        if meddles:
            moved(exchange)
        return meddles

    with push.chain.front.meddled_with(meddle):
        yield


@contextmanager
def _another_host(push: Push, status: int) -> Iterator[None]:
    """The bodies go there, and no credentials do."""
    headers = push.chain.registry.plain.admitted(push.repository)
    with Elsewhere(push.chain, headers) as elsewhere:

        def meddle(exchange: Exchange) -> bool:
            if exchange.command == "POST" and status == 202 and "Authorization" in exchange.headers:
                begun = push.chain.registry.plain.bare("POST", exchange.path, b"", headers)
                location = urlsplit(begun.headers["Location"])
                exchange.answer(202, Location=f"{elsewhere.url}{location.path}?{location.query}")
                return True
            if exchange.command == "PATCH":
                exchange.body()
                exchange.answer(307, Location=f"{elsewhere.url}{exchange.path}")
                return True
            return False

        with push.chain.front.meddled_with(meddle):
            yield
        assert elsewhere.requests
        assert [each for each in elsewhere.requests if each[1]] == []


FAULTS: tuple[tuple[str, Fault, str], ...] = (
    ("the registry refuses connections", stopped("front"), GATEWAY),
    ("the registry is a black hole", black_hole("front"), LATE),
    ("reset before it begins", at("POST", resets_after(0)), GATEWAY),
    ("reset at byte 0", at("PATCH", resets_after(0)), GATEWAY),
    ("reset at byte 1", at("PATCH", resets_after(1)), GATEWAY),
    ("reset in the middle", at("PATCH", resets_after(HALF)), GATEWAY),
    ("reset before the last byte", at("PATCH", resets_after(SIZE - 1)), GATEWAY),
    ("reset behind the last byte", at("PATCH", resets_after(SIZE)), GATEWAY),
    ("reset when it is completed", at("PUT", resets_after(0)), GATEWAY),
    ("it takes nothing", at("PATCH", stops_taking(0)), LATE),
    ("it takes no more from byte 65,536 on", at("PATCH", stops_taking(65_536)), LATE),
    ("413", at("PATCH", answers(413)), "413 SIZE_INVALID"),
    ("413 before the body", at("PATCH", answers(413, early=True)), "413 SIZE_INVALID"),
    ("429", at("PATCH", answers(429)), "429 TOOMANYREQUESTS"),
    (
        "429 before the body",
        at("PATCH", answers(429, early=True, Retry_After="9")),
        "429 TOOMANYREQUESTS, Retry-After: 9",
    ),
    ("429 when it begins", at("POST", answers(429)), "429 TOOMANYREQUESTS"),
    ("500", at("PATCH", answers(500)), "500 UNAVAILABLE"),
    ("500 before the body", at("PATCH", answers(500, early=True)), "500 UNAVAILABLE"),
    ("503 for a manifest", at("PUT", answers(503)), "503 UNAVAILABLE"),
    ("a redirect on the same host", _redirect_to_itself, TAKEN),
    ("a redirect to another host", lambda push: _another_host(push, 307), TAKEN),
    ("an upload on another host", lambda push: _another_host(push, 202), TAKEN),
    ("a redirect to a private address", at("PATCH", _leads("http://10.0.0.1/")), GATEWAY),
    (
        "a redirect to the cloud's metadata",
        at("PATCH", _leads("http://169.254.169.254/", early=True)),
        GATEWAY,
    ),
    ("a redirect to a file", at("PATCH", _leads("file:///etc/passwd")), GATEWAY),
    ("an upload at a private address", at("POST", _leads("http://10.0.0.1/", 202)), GATEWAY),
    ("an upload at no address", at("POST", _leads("http://[", 202)), GATEWAY),
    ("an upload at a file", at("POST", _leads("file:///etc/passwd", 202)), GATEWAY),
)
CHUNKED: tuple[tuple[str, Fault, str], ...] = (
    ("reset in the middle", at("PATCH", resets_after(HALF)), GATEWAY),
    ("it takes nothing", at("PATCH", stops_taking(0)), LATE),
    ("413 before the body", at("PATCH", answers(413, early=True)), "413 SIZE_INVALID"),
    ("429 before the body", at("PATCH", answers(429, early=True)), "429 TOOMANYREQUESTS"),
)
ROWS = [
    *(Row(f"push: {name}", fault, gets) for name, fault, gets in FAULTS),
    *(Row(f"push: in chunks, {name}", fault, gets, chunked=True) for name, fault, gets in CHUNKED),
]


CASES = [pytest.param(row, id=row.name.replace(" ", "-"), marks=hardship(row.name)) for row in ROWS]


@pytest.mark.parametrize("row", CASES)
def test_fault(chain: Chain, row: Row, came: Record) -> None:
    """The client is told the truth, nothing wrong is kept, and the next push after the fault succeeds."""
    repository = f"library/push-{zlib.crc32(row.name.encode())}"
    push = Push(chain, artifact(row.name, size=SIZE), repository, row.chunked)
    with row.fault(push):
        gets = push.push()
    came(gets)
    assert push.arrived() == (gets == TAKEN)
    wait_until(lambda: push.push() == TAKEN, "the next push succeeds", seconds=10)
    assert push.arrived()
    assert chain.mirror.failures() == ""
    assert gets == row.gets
