"""``python -m bench.hot``: 300 clients that want one blob at once, from three mirrors with one bucket."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

from demo.program import free_port

from .blobs import make_blob, verify
from .command import run
from .peers.haproxy import balancing
from .peers.mirror import mirrored
from .peers.origin import origin
from .peers.seaweedfs import ENVIRONMENT, seaweedfs
from .table import Row, at_most

CLIENTS = 300
MEBIBYTES = 8
MIRRORS = 3
_PIECE = 256 * 1024


def rows(rounds: int) -> Iterator[Row]:
    """Measure the slowest of a hundred clients against the median, and the copies from the upstream."""
    os.environ.update(ENVIRONMENT)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 4096), hard), hard))
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = stack.enter_context(origin(directory))
        bucket = stack.enter_context(seaweedfs(directory))
        ports = [free_port() for _ in range(MIRRORS)]
        peers = [f"http://127.0.0.1:{port}" for port in ports]
        own = f'{bucket.settings}trust_proxy = ["127.0.0.1"]\npeers = {json.dumps(peers)}\n'
        mirrors = [
            stack.enter_context(mirrored(upstream.url, name="objects", own=own, port=port)) for port in ports
        ]
        port, _ = stack.enter_context(balancing(directory, ports))
        cold: list[float] = []
        warm: list[float] = []
        copies: list[float] = []
        later: list[float] = []
        for number in range(rounds):
            digest = make_blob(upstream.blobs, MEBIBYTES, 500 + number)
            path = urlsplit(mirrors[0].blob(digest)).path
            cold.append(_spread(asyncio.run(_pull_all(port, path))))
            copies.append(upstream.sent("objects", digest) / (MEBIBYTES * 2**20))
            for each in mirrors:
                verify(each.blob(digest), digest)
            before = upstream.sent("objects", digest)
            warm.append(_spread(asyncio.run(_pull_all(port, path))))
            later.append((upstream.sent("objects", digest) - before) / (MEBIBYTES * 2**20))
    for case, spreads, sent in (("cold", cold, copies), ("warm", warm, later)):
        name = f"hot blob, {case}, {CLIENTS} clients, {MIRRORS} mirrors behind HAProxy"
        yield Row(name, "p99 in p50", spreads, aim=at_most(1.8))
        yield Row(name, "from the upstream, in blobs", sent, aim=at_most(2.0 if case == "cold" else 0.0))


def _spread(seconds: Sequence[float]) -> float:
    """Return the 99th percentile in medians."""
    return statistics.quantiles(seconds, n=100)[98] / statistics.median(seconds)


async def _pull_all(port: int, path: str) -> list[float]:
    return await asyncio.gather(*[_pull(port, path) for _ in range(CLIENTS)])


async def _pull(port: int, path: str) -> float:
    """Return the seconds in which one client has got the blob."""
    started = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    if b" 200 " not in head.partition(b"\r\n")[0]:
        raise ValueError(f"{path}: {head!r}")
    got = 0
    while data := await reader.read(_PIECE):
        got += len(data)
    writer.close()
    if got != MEBIBYTES * 2**20:
        raise ValueError(f"{path}: {got} bytes")
    return time.monotonic() - started


if __name__ == "__main__":
    run(rows)
