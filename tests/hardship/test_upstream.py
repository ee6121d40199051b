"""Upstreams that fail and lie: what the client gets of each, and that it is over when they are."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.parts.accounts import ALICE, Account
from tests.integration.parts.chain import Chain
from tests.integration.parts.images import artifact
from tests.integration.parts.kept import wrong_blobs
from tests.integration.parts.process import wait_until
from tests.integration.parts.server import Exchange
from tests.integration.parts.tokens import SERVICE

from .conftest import Record
from .trial import CUT_OFF, RIGHT, Fault, Trial, always, black_hole, meddling, stopped
from .wire import Answer, drips, endless, head, is_silent, refuses, resets_at, sends, whole

pytestmark = pytest.mark.integration

SIZE = 300_000
HALF = SIZE // 2
GATEWAY, LATE, LIMIT = "502 UNAVAILABLE", "504 UNAVAILABLE", "429 TOOMANYREQUESTS"
BEGUN, EARLY = b"HTTP/1.1 200 OK\r\n", head("103 Early Hints")
NOBODYS = f"sha256:{'0' * 64}"


@dataclass(frozen=True)
class Row:
    """What befalls, what a client asks for meanwhile, and what it gets.

    :ivar restarted: whether the mirror is, before the next pull: what has failed so it leaves alone a while.
    """

    name: str
    asks: str
    fault: Fault
    gets: str
    restarted: bool = False
    account: Account | None = None


def _flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def _announced(length: str) -> Answer:
    return sends(lambda data: head("200 OK", f"Content-Length: {length}") + data)


def _labelled(data: bytes) -> bytes:
    return head("200 OK", "Content-Encoding: gzip", f"Content-Length: {len(data)}") + data


def _part(told: str) -> Answer:
    """Whatever was asked for, the first bytes, as the part that is *told*."""
    partial = head("206 Partial Content", "Content-Length: 199000", f"Content-Range: {told}")
    return sends(lambda data: partial + data[:199_000])


_page = refuses(200, b"<html>Please accept the terms.</html>", Content_Type="text/html")


def _old(cut: int) -> Answer:
    return sends(lambda data: head("200 OK", version="HTTP/1.0") + data[: len(data) - cut])


def _redirects(to: str) -> Answer:
    return lambda exchange, _: exchange.answer(307, Location=to or exchange.path)


@contextmanager
def _no_ranges(trial: Trial) -> Iterator[None]:
    trial.chain.blobs.ranges = False
    try:
        yield
    finally:
        trial.chain.blobs.ranges = True


@contextmanager
def _dropped(trial: Trial) -> Iterator[None]:
    """All connections that are kept alive are closed, before the mirror is asked."""
    with trial.chain.blobs.stopped(), trial.chain.front.stopped():
        pass
    yield


def _tokens_end(at: int) -> Fault:
    """A connection that is reset at that byte of the blob, which ends all tokens that were used till then."""

    @contextmanager
    def fault(trial: Trial) -> Iterator[None]:
        tokens = trial.chain.tokens
        challenge = f'Bearer realm="{tokens.realm}",service="{SERVICE}",error="invalid_token"'
        used, ended, refused = set[str](), set[str](), []

        def breaks(exchange: Exchange) -> bool:
            if ended:
                return False
            ended.update(used)
            resets_at(at)(exchange, trial.data)
            return True

        def forgets(exchange: Exchange) -> bool:
            token = exchange.headers.get("Authorization", "")
            used.add(token)
            if token not in ended:
                return False
            refused.append(token)
            exchange.answer(401, b'{"errors": []}', WWW_Authenticate=challenge)
            return True

        with trial.chain.blobs.meddled_with(breaks), trial.chain.front.meddled_with(forgets):
            yield
        assert refused

    return fault


Group = tuple[tuple[str, Fault, str], ...]
"""Of each fault its name, itself, and what the client gets."""

BLOB: Group = (
    ("its host refuses connections", stopped("blobs"), GATEWAY),
    ("its host has a name that nobody knows", always("front", _redirects("http://nobody.test/")), GATEWAY),
    ("its host is a black hole", black_hole("blobs"), LATE),
    ("its host does not answer", always("blobs", is_silent), LATE),
    ("reset within the headers", meddling("blobs", resets_at(-20)), GATEWAY),
    ("reset at byte 0", meddling("blobs", resets_at(0)), RIGHT),
    ("reset at byte 1", meddling("blobs", resets_at(1)), RIGHT),
    ("reset at byte 65,535", meddling("blobs", resets_at(65_535)), RIGHT),
    ("reset at byte 65,536", meddling("blobs", resets_at(65_536)), RIGHT),
    ("reset in the middle", meddling("blobs", resets_at(HALF)), RIGHT),
    ("reset before the last byte", meddling("blobs", resets_at(SIZE - 1)), RIGHT),
    ("reset in the middle, each time", always("blobs", resets_at(HALF)), CUT_OFF),
    ("it ends too soon", meddling("blobs", sends(lambda data: whole(data)[:-1000])), RIGHT),
    ("more bytes than announced", always("blobs", sends(lambda data: whole(data) + b"more")), RIGHT),
    ("labelled gzip", always("blobs", sends(_labelled)), RIGHT),
    ("a byte a second", meddling("blobs", drips(3)), RIGHT),
    ("a redirect to itself", always("front", _redirects("")), GATEWAY),
    ("a redirect to a private address", always("front", _redirects("http://10.0.0.1/")), GATEWAY),
    ("a redirect to the cloud's metadata", always("front", _redirects("http://169.254.169.254/")), GATEWAY),
    ("a redirect to a file", always("front", _redirects("file:///etc/passwd")), GATEWAY),
    ("its address has expired", meddling("blobs", refuses(403)), RIGHT),
    ("its address has expired, each time", always("blobs", refuses(403)), GATEWAY),
    ("the mirror's token ends in the middle", _tokens_end(HALF), RIGHT),
    ("500 of its host", always("blobs", refuses(500)), "500 UNAVAILABLE"),
    ("503 of its host", always("blobs", refuses(503)), "503 UNAVAILABLE"),
    ("HTTP/1.0 without a length", always("blobs", _old(0)), RIGHT),
    ("connections closed while they were kept", _dropped, RIGHT),
    ("a connection closed when it is asked again", meddling("blobs", resets_at(-1000)), RIGHT),
)
WRONG_BLOB: Group = (
    ("of another digest", always("blobs", sends(lambda data: whole(_flipped(data)))), CUT_OFF),
    ("a web page in its place", always("blobs", _page), GATEWAY),
    ("compressed on its way", always("blobs", sends(lambda data: whole(gzip.compress(data)))), CUT_OFF),
    ("a length that is too small", always("blobs", _announced("299000")), CUT_OFF),
    ("a length that is no number", always("blobs", _announced("many")), GATEWAY),
    ("a length below nothing", always("blobs", _announced("-5")), GATEWAY),
    ("two lengths", always("blobs", _announced(f"5\r\nContent-Length: {SIZE}")), GATEWAY),
    ("HTTP/1.0 without a length, cut", always("blobs", _old(1)), CUT_OFF),
)
PRIVATE: Group = (("the client's token ends in the middle", _tokens_end(HALF), CUT_OFF),)
RANGE: Group = (
    ("200 in place of 206", _no_ranges, RIGHT),
    ("206 with another range", always("blobs", _part(f"bytes 0-198999/{SIZE}")), GATEWAY),
    ("206 with no range", always("blobs", _part("bytes")), GATEWAY),
    ("reset in the middle", meddling("blobs", resets_at(HALF)), RIGHT),
)
MANIFEST: Group = (
    ("the registry refuses connections", stopped("front"), GATEWAY),
    ("the registry is a black hole", black_hole("front"), LATE),
    ("the registry does not answer", always("front", is_silent), LATE),
    ("reset in the middle", meddling("front", resets_at(100)), RIGHT),
    ("reset in the middle, each time", always("front", resets_at(100)), GATEWAY),
    ("of another digest", always("front", refuses(200, b"{}", Docker_Content_Digest=NOBODYS)), GATEWAY),
    ("without an end", always("front", endless(head("200 OK"), b"{" * 10_000)), GATEWAY),
    ("500", always("front", refuses(500)), "500 UNAVAILABLE"),
    ("502", always("front", refuses(502)), "502 UNAVAILABLE"),
    ("503", always("front", refuses(503)), "503 UNAVAILABLE"),
    ("504", always("front", refuses(504)), "504 UNAVAILABLE"),
    ("a web page in its place", always("front", _page), GATEWAY),
    ("the token service fails", always("tokens", refuses(503)), "503 UNAVAILABLE"),
)
RESTED: Group = (
    ("headers without an end", always("front", endless(BEGUN, b"X-Header: y\r\n")), GATEWAY),
    ("a header line without an end", always("front", endless(BEGUN + b"X-Header: ", b"y" * 1000)), GATEWAY),
    ("informational responses without an end", always("front", endless(b"", EARLY)), GATEWAY),
    ("429", always("front", refuses(429)), LIMIT),
    ("429 with Retry-After", always("front", refuses(429, Retry_After="9")), f"{LIMIT}, Retry-After: 9"),
    ("the token service refuses connections", stopped("tokens"), GATEWAY),
)
ROWS = [
    *(Row(f"blob: {name}", "blob", fault, gets) for name, fault, gets in BLOB),
    *(Row(f"blob: {name}", "blob", fault, gets, restarted=True) for name, fault, gets in WRONG_BLOB),
    *(Row(f"private blob: {name}", "blob", fault, gets, account=ALICE) for name, fault, gets in PRIVATE),
    *(Row(f"range: {name}", "range", fault, gets) for name, fault, gets in RANGE),
    *(Row(f"manifest: {name}", "manifest", fault, gets) for name, fault, gets in MANIFEST),
    *(Row(f"manifest: {name}", "manifest", fault, gets, restarted=True) for name, fault, gets in RESTED),
]


def test_documented() -> None:
    """docs/reliability.md has a row for each of these, in this order, and says the same of it."""
    lines = (Path(__file__).parents[2] / "docs/reliability.md").read_text("utf-8").splitlines()
    start = lines.index("| fault | what the client gets |") + 2
    assert lines[start : start + len(ROWS)] == [f"| {row.name} | {row.gets} |" for row in ROWS]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name.replace(" ", "-"))
def test_fault(chain: Chain, row: Row, record_property: Record) -> None:
    """The client is told the truth, nothing wrong is kept, and the next pull after the fault succeeds."""
    record_property("hardship", row.name)
    pushed = artifact(row.name, size=SIZE)
    repository = f"{'private' if row.account else 'library'}/fault-{zlib.crc32(row.name.encode())}"
    chain.registry.push(repository, pushed, "latest")
    trial = Trial(chain, pushed, repository, row.asks, row.account)
    with row.fault(trial):
        gets = trial.pull()
    record_property("gets", gets)
    assert chain.mirror.failures() == ""
    if row.restarted:
        chain.mirror.stop()
        chain.mirror.start()
    wait_until(lambda: trial.pull() == RIGHT, "the next pull succeeds", seconds=10)
    assert wrong_blobs(chain.mirror.cache) == []
    assert gets == row.gets
