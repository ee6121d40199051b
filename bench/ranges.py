"""``python -m bench.ranges``: the copies that clients which fetch a blob in parts cost at the upstream."""

from __future__ import annotations

import http.client
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from urllib.parse import urlsplit

from dockmirror.store.downloads.block_file import BLOCK

from .blob import LargeBlob
from .capped import Capped, capped_registry
from .command import run
from .peers.mirror import NAME, mirrored
from .peers.peer import Peer
from .rounds import in_turn
from .table import Row, at_most

CLIENTS = 16
AT_ONCE = 8
"""Parts of one client that are under way at the same time."""
PART = 8 * 1024 * 1024
MEBIBYTES = 64
RATES = (500_000_000, 10_000_000, 2_000_000)
"""Bytes a second that one connection of the upstream sends."""
AWAY = 0.05
"""Seconds until the upstream answers."""
ROUNDS = 2
_UPSTREAM = "the upstream itself"
_MIB = 1024 * 1024


def rows(rounds: int) -> Iterator[Row]:
    """Measure the bytes that left the upstream, and the first byte of a range."""
    count = min(rounds, ROUNDS)
    for rate in RATES:
        for workers in (1, 2):
            for is_open_ended in (True, False):
                blob = LargeBlob(MEBIBYTES, random.Random().randbytes(_MIB))
                copies = [_copies(blob, rate, workers, is_open_ended) for _ in range(count)]
                kind = "open-ended" if is_open_ended else "closed"
                case = (
                    f"{CLIENTS} clients in {kind} parts, {rate // 10**6} MB/s a connection, {workers} workers"
                )
                yield Row(case, "copies", copies, aim=at_most(1.05))
    yield from _first_byte(rounds)


def _copies(blob: LargeBlob, rate: float, workers: int, is_open_ended: bool) -> float:
    with ExitStack() as stack:
        registry: Capped = stack.enter_context(capped_registry([blob], rate, AWAY))
        peer = stack.enter_context(mirrored(registry.url, f"--workers={workers}"))
        fetch = partial(_fetch, peer.blob(blob.digest()), blob, is_open_ended)
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(lambda _: fetch(), range(CLIENTS)))
        time.sleep(1)  # the rest is fetched in the background
        return registry.sent[blob.digest()] / blob.size


def _fetch(url: str, blob: LargeBlob, is_open_ended: bool) -> None:
    """Fetch a blob in parts, each by a connection that is closed when the part has come."""

    def part(first: int) -> None:
        length = min(PART, blob.size - first)
        with closing(_ranged(url, first, None if is_open_ended else first + length - 1)) as response:
            for _ in range(length // _MIB):
                assert response.read(_MIB) == blob.piece

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(part, range(0, blob.size, PART)))


def _first_byte(rounds: int) -> Iterator[Row]:
    blobs = [LargeBlob(MEBIBYTES, random.Random(number).randbytes(_MIB)) for number in range(rounds + 1)]
    for rate in RATES:
        middle = _MIB // 2 + BLOCK // 2
        for offset, name in ((0, "at the beginning of a block"), (middle, "in the middle of a block")):
            with ExitStack() as stack:
                registry = stack.enter_context(capped_registry(blobs, rate, AWAY))
                peers = {
                    NAME: stack.enter_context(mirrored(registry.url)),
                    _UPSTREAM: Peer(_UPSTREAM, f"{registry.url}/v2/anything", 0),
                }
                got = in_turn(
                    rounds, {each: partial(_first, peer, blobs, offset) for each, peer in peers.items()}
                )
            case = f"range {name}, {AWAY * 1000:g} ms away, {rate // 10**6} MB/s a connection"
            yield Row(case, "first byte, ms", got[NAME], _UPSTREAM, got[_UPSTREAM], at_most(1.3))


def _first(peer: Peer, blobs: list[LargeBlob], offset: int, number: int) -> float:
    url, started = peer.blob(blobs[number].digest()), time.monotonic()
    with closing(_ranged(url, 3 * _MIB + offset, 4 * _MIB - 1)) as response:
        response.read(1)
        return (time.monotonic() - started) * 1e3


def _ranged(url: str, first: int, last: int | None) -> http.client.HTTPResponse:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=120)
    connection.request("GET", parts.path, headers={"Range": f"bytes={first}-{'' if last is None else last}"})
    response = connection.getresponse()
    assert response.status == 206
    response.headers["Connection"] = "close"
    return response


if __name__ == "__main__":
    run(rows)
