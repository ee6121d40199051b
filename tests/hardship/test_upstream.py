"""Upstreams that fail and lie: the client's result of each fault, and its recovery afterwards."""

from __future__ import annotations

import gzip
import random
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from urllib.parse import urlsplit

import jwt
import pytest

from tests.integration.parts.accounts import ALICE, Account
from tests.integration.parts.chain import Chain
from tests.integration.parts.images import artifact
from tests.integration.parts.kept import wrong_blobs
from tests.integration.parts.process import wait_until
from tests.integration.parts.server import Exchange
from tests.integration.parts.tokens import SERVICE

from .rows import Record, hardship
from .trial import CUT_OFF, RIGHT, Fault, Trial, always, black_hole, meddling, stopped
from .wire import Answer, breaks_anywhere, drips, endless, head, is_silent, refuses, resets_at, sends, whole

pytestmark = pytest.mark.integration

SIZE = 300_000
HALF = SIZE // 2
GATEWAY, LATE, LIMIT = "502 UNAVAILABLE", "504 UNAVAILABLE", "429 TOOMANYREQUESTS"
BEGUN, EARLY = b"HTTP/1.1 200 OK\r\n", head("103 Early Hints")
TOMORROW = format_datetime(datetime.now(UTC) + timedelta(days=1), usegmt=True)
NOBODY = "http://nobody.test/"
METADATA = "http://169.254.169.254/"
ENDLESS_HEADERS = meddling("front", endless(BEGUN, b"X-Header: y\r\n"))
NOBODYS = f"sha256:{'0' * 64}"


AT_ONCE, RESTARTED, LATER = "at once", "restarted", "later"


@dataclass(frozen=True)
class Row:
    """A fault, the request during it, and its result.

    :ivar afterwards: when the next pull must succeed: at once, after the mirror was started anew, or "later":
        what has failed so is left alone for a while, which is tried of all such rows at once.
    """

    name: str
    asks: str
    fault: Fault
    gets: str
    afterwards: str = AT_ONCE
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
    """Close all connections that are kept alive, before the request."""
    with trial.chain.blobs.stopped(), trial.chain.front.stopped():
        pass
    yield


def _token_refused(name: str) -> Fault:
    """The first token of that account that comes is not taken; an account without a name is anybody's."""

    @contextmanager
    def fault(trial: Trial) -> Iterator[None]:
        challenge = f'Bearer realm="{trial.chain.tokens.realm}",service="{SERVICE}",error="invalid_token"'
        refused: list[str] = []

        def refuse(exchange: Exchange) -> bool:
            token = exchange.headers.get("Authorization", "").removeprefix("Bearer ")
            if refused or not token or jwt.decode(token, options={"verify_signature": False})["sub"] != name:
                return False
            refused.append(token)
            exchange.answer(401, b'{"errors": []}', WWW_Authenticate=challenge)
            return True

        with trial.chain.front.meddled_with(refuse):
            yield
        assert refused

    return fault


def _known(fault: Fault) -> Fault:
    """Its manifest was pulled just before: a token for the repository is held, and the sizes are known."""

    @contextmanager
    def with_its_manifest(trial: Trial) -> Iterator[None]:
        wait_until(lambda: replace(trial, asks="manifest").pull() == RIGHT, "its manifest is pulled")
        with fault(trial):
            yield

    return with_its_manifest


def _another(trial: Trial, asks: str, name: str) -> Trial:
    repository = f"{trial.repository}-{name}"
    other = artifact(repository, size=SIZE)
    trial.chain.registry.push(repository, other, "latest")
    return replace(trial, image=other, repository=repository, asks=asks)


def _beside(fault: Fault, asks: str) -> Fault:
    """Another image has met with it just before."""

    @contextmanager
    def after_another(trial: Trial) -> Iterator[None]:
        before, beside = (_another(trial, asks, when) for when in ("before", "beside"))
        wait_until(lambda: before.pull() == RIGHT, "nothing is left alone any more")
        with fault(trial):
            assert beside.pull() != RIGHT
            yield

    return after_another


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
"""Rows of a fault's name, the fault, and the client's result."""


def _anywhere(part: str) -> Group:
    """Faults of manifests and blobs alike."""
    return (
        ("its host refuses connections", stopped(part), GATEWAY),
        ("its host is a black hole", black_hole(part), LATE),
        ("its host does not answer", always(part, is_silent), LATE),
        ("headers without an end", always(part, endless(BEGUN, b"X-Header: y\r\n")), GATEWAY),
        ("a header line without an end", always(part, endless(BEGUN + b"X-Header: ", b"y" * 1000)), GATEWAY),
        ("informational responses without an end", always(part, endless(b"", EARLY)), GATEWAY),
        ("reset before the headers", meddling(part, resets_at(-1000)), RIGHT),
        ("reset within the headers", meddling(part, resets_at(-20)), RIGHT),
        ("reset within the headers, each time", always(part, resets_at(-20)), GATEWAY),
        ("closed within the status", meddling(part, sends(lambda _: b"HTTP/1.1 2")), RIGHT),
        ("reset at byte 0", meddling(part, resets_at(0)), RIGHT),
        ("reset at byte 1", meddling(part, resets_at(1)), RIGHT),
        ("it ends too soon", meddling(part, sends(lambda data: whole(data)[:-100])), RIGHT),
        ("more bytes than announced", always(part, sends(lambda data: whole(data) + b"more")), RIGHT),
        ("labelled gzip", always(part, sends(_labelled)), RIGHT),
        ("a length that is no number", always(part, _announced("many")), GATEWAY),
        ("a length below nothing", always(part, _announced("-5")), GATEWAY),
        ("two lengths", always(part, _announced(f"5\r\nContent-Length: {SIZE}")), GATEWAY),
        ("HTTP/1.0 without a length", always(part, _old(0)), RIGHT),
        ("a redirect to itself", always("front", _redirects("")), GATEWAY),
        (
            "a redirect to a name that nobody knows",
            always("front", _redirects(NOBODY)),
            GATEWAY,
        ),
        ("a redirect to a private address", always("front", _redirects("http://10.0.0.1/")), GATEWAY),
        ("a redirect to the cloud's metadata", always("front", _redirects(METADATA)), GATEWAY),
        ("a redirect to a file", always("front", _redirects("file:///etc/passwd")), GATEWAY),
        ("connections closed while they were kept", _dropped, RIGHT),
        ("a web page in its place", always(part, _page), GATEWAY),
        *((f"{code}", always(part, refuses(code)), f"{code} UNAVAILABLE") for code in (500, 502, 503, 504)),
    )


def _limits(part: str) -> Group:
    """Faults of a rate limit; ``Retry-After`` says how long it lasts."""
    return (
        ("429", always(part, refuses(429)), f"{LIMIT}, Retry-After: 60"),
        ("429 with Retry-After: 9", always(part, refuses(429, Retry_After="9")), f"{LIMIT}, Retry-After: 9"),
        ("429, until soon", always(part, refuses(429, Retry_After="soon")), f"{LIMIT}, Retry-After: 60"),
        (
            "429, until tomorrow",
            always(part, refuses(429, Retry_After=TOMORROW)),
            f"{LIMIT}, Retry-After: 3600",
        ),
    )


BURST = [refuses(status) for status in (503, 502, 504)]
LIMITED_TOKENS = always("tokens", refuses(429))
BLOB: Group = (
    *_anywhere("blobs"),
    *((f"reset at byte {at:,}", meddling("blobs", resets_at(at)), RIGHT) for at in (65_535, 65_536, HALF)),
    ("reset before the last byte", meddling("blobs", resets_at(SIZE - 1)), RIGHT),
    ("reset after each 60,000 bytes", always("blobs", breaks_anywhere(60_000)), RIGHT),
    ("reset in the middle, each time", always("blobs", resets_at(HALF)), CUT_OFF),
    ("reset, then 503, 502 and 504", meddling("blobs", resets_at(HALF), *BURST), RIGHT),
    ("reset, then 429", meddling("blobs", resets_at(HALF), refuses(429, Retry_After="1")), RIGHT),
    ("a byte a second", meddling("blobs", drips(3)), RIGHT),
    ("its address has expired", meddling("blobs", refuses(403)), RIGHT),
    ("its address has expired, each time", always("blobs", refuses(403)), GATEWAY),
    ("the mirror's token ends in the middle", _tokens_end(HALF), RIGHT),
    ("no length and no end", _known(always("blobs", endless(head("200 OK"), b"y" * 9999))), CUT_OFF),
    ("the token service is down, a token is held", _known(_beside(stopped("tokens"), "manifest")), RIGHT),
    (
        "the token service is at its limit, a token is held",
        _known(_beside(LIMITED_TOKENS, "manifest")),
        RIGHT,
    ),
)
WRONG_BLOB: Group = (
    ("of another digest", always("blobs", sends(lambda data: whole(_flipped(data)))), CUT_OFF),
    ("compressed on its way", always("blobs", sends(lambda data: whole(gzip.compress(data)))), CUT_OFF),
    ("a length that is too small", always("blobs", _announced("299000")), CUT_OFF),
    ("HTTP/1.0 without a length, cut", always("blobs", _old(1)), CUT_OFF),
    *_limits("blobs"),
)
PRIVATE: Group = (
    ("the client's token ends in the middle", _tokens_end(HALF), CUT_OFF),
    ("the client's token is refused", _token_refused(ALICE.name), "401 UNAUTHORIZED"),
)
RANGE: Group = (
    ("200 in place of 206", _no_ranges, RIGHT),
    ("206 with another range", always("blobs", _part(f"bytes 0-198999/{SIZE}")), GATEWAY),
    ("206 with no range", always("blobs", _part("bytes")), GATEWAY),
    ("reset in the middle", meddling("blobs", resets_at(HALF)), RIGHT),
    ("reset within the headers", meddling("blobs", resets_at(-20)), RIGHT),
    ("its address has expired", meddling("blobs", refuses(403)), RIGHT),
)
MANIFEST: Group = (
    *_anywhere("front"),
    ("reset in the middle", meddling("front", resets_at(100)), RIGHT),
    ("reset in the middle, each time", always("front", resets_at(100)), GATEWAY),
    ("a length that is too small", always("front", _announced("100")), GATEWAY),
    ("HTTP/1.0 without a length, cut", always("front", _old(1)), GATEWAY),
    ("compressed on its way", always("front", sends(lambda data: whole(gzip.compress(data)))), GATEWAY),
    ("of another digest", always("front", refuses(200, b"{}", Docker_Content_Digest=NOBODYS)), GATEWAY),
    ("without an end", always("front", endless(head("200 OK"), b"{" * 10_000)), GATEWAY),
    ("a byte a second", meddling("front", drips(10)), LATE),
    ("its token is refused, once", _known(_token_refused("")), RIGHT),
    ("the token service is down", stopped("tokens"), GATEWAY),
    ("the token service is a black hole", black_hole("tokens"), LATE),
    ("the token service does not answer", always("tokens", is_silent), LATE),
    ("the token service fails", always("tokens", refuses(503)), "503 UNAVAILABLE"),
    ("the token service is a web page", always("tokens", _page), GATEWAY),
    ("the host of the blobs is down", _beside(stopped("blobs"), "blob"), RIGHT),
    ("the host of the blobs is at its limit", _beside(always("blobs", refuses(429)), "blob"), RIGHT),
    ("another one has headers without an end", _beside(ENDLESS_HEADERS, "manifest"), RIGHT),
)
LIMITED: Group = (
    *_limits("front"),
    ("429 of the token service", LIMITED_TOKENS, f"{LIMIT}, Retry-After: 60"),
)
ROWS = [
    *(Row(f"blob: {name}", "blob", fault, gets) for name, fault, gets in BLOB),
    *(Row(f"blob: {name}", "blob", fault, gets, LATER) for name, fault, gets in WRONG_BLOB),
    *(Row(f"private blob: {name}", "blob", fault, gets, account=ALICE) for name, fault, gets in PRIVATE),
    *(Row(f"range: {name}", "range", fault, gets) for name, fault, gets in RANGE),
    *(Row(f"manifest: {name}", "manifest", fault, gets) for name, fault, gets in MANIFEST),
    *(Row(f"manifest: {name}", "manifest", fault, gets, RESTARTED) for name, fault, gets in LIMITED),
]
LEFT_ALONE: list[Trial] = []
"""The trials of which the mirror asks for nothing for a while."""
CASES = [pytest.param(row, id=row.name.replace(" ", "-"), marks=hardship(row.name)) for row in ROWS]


@pytest.mark.parametrize("row", CASES)
def test_fault(chain: Chain, row: Row, came: Record) -> None:
    """The client is told the truth, nothing wrong is kept, and the next pull after the fault succeeds."""
    pushed = artifact(row.name, size=SIZE)
    repository = f"{'private' if row.account else 'library'}/fault-{zlib.crc32(row.name.encode())}"
    chain.registry.push(repository, pushed, "latest")
    trial = Trial(chain, pushed, repository, row.asks, row.account)
    with row.fault(trial):
        gets = trial.pull()
    came(gets)
    assert chain.mirror.failures() == ""
    assert gets == row.gets
    if row.afterwards == LATER:
        LEFT_ALONE.append(trial)
        return
    if row.afterwards == RESTARTED:
        _restart(chain)
    wait_until(lambda: trial.pull() == RIGHT, "the next pull succeeds", seconds=10)


@hardship("blob: reset at 40 places, of 40 blobs")
def test_reset_anywhere(chain: Chain, came: Record) -> None:
    """A blob is delivered whole wherever its connection breaks."""
    places = {*range(200), *range(65_500, 65_600), *range(SIZE - 200, SIZE), *range(0, SIZE, 5000)}
    trials: dict[str, tuple[int, Trial]] = {}
    for at in random.Random(1).sample(sorted(places), 40):
        pushed, repository = artifact(f"reset at {at}", size=SIZE), f"library/reset-{at}"
        chain.registry.push(repository, pushed, "latest")
        trials[pushed.layers[0].digest[-64:]] = at, Trial(chain, pushed, repository, "blob")
    left = dict(trials)

    def breaks(exchange: Exchange) -> bool:
        found = left.pop(urlsplit(exchange.path).path[-64:], None)
        if found is not None:
            resets_at(found[0])(exchange, found[1].data)
        return found is not None

    with chain.blobs.meddled_with(breaks), ThreadPoolExecutor(10) as pool:
        seen = Counter(pool.map(lambda each: each[1].pull(), trials.values()))
    assert not left
    came(", ".join(f"{count} times {gets}" for gets, count in seen.items()))
    assert seen == {RIGHT: 40}


def test_nothing_wrong_was_kept(chain: Chain) -> None:
    """No wrong content is stored, and the blobs that failed are fetched after a restart."""
    _restart(chain)
    assert [trial.pull() for trial in LEFT_ALONE] == [RIGHT for _ in LEFT_ALONE]
    assert wrong_blobs(chain.mirror.cache) == []


def _restart(chain: Chain) -> None:
    chain.mirror.stop()
    chain.mirror.start()
