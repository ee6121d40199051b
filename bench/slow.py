"""``python -m bench.slow``: the memory that one blob takes for 1, 64 and 512 slow clients."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from .blobs import make_blob
from .clients.slow import read_slowly
from .command import run
from .peers import distribution, nginx
from .peers.mirror import mirrored
from .peers.origin import origin
from .peers.peer import Peer
from .process import forget_peak, peak_memory
from .table import Row, at_most

CLIENTS = (1, 64, 512)
MEBIBYTES = 256
SECONDS = 3
LIMIT = 100
"""Megabytes that a worker may take."""
RELAY = "the mirror without a cache"


def rows(rounds: int) -> Iterator[Row]:
    """Measure peaks once each, as they hardly differ from run to run, while the mirror fills its cache."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = stack.enter_context(origin(directory))
        mirror = stack.enter_context(mirrored(upstream.url))
        others = [
            stack.enter_context(mirrored(upstream.url, "--cache-size=0", name=RELAY, connections=512)),
            stack.enter_context(distribution.pull_through(directory, upstream.url)),
            stack.enter_context(nginx.proxy_cache(directory, upstream.url)),
        ]
        for clients in CLIENTS:
            digest = make_blob(upstream.blobs, MEBIBYTES, clients)
            case = f"cold blob, {clients} slow clients"
            ours = [_peak(mirror, digest, clients)]
            yield Row(case, "peak memory, MB", ours, aim=at_most(LIMIT))
            for other in others:
                yield Row(case, "peak memory, MB", ours, other.name, [_peak(other, digest, clients)])


def _peak(peer: Peer, digest: str, clients: int) -> float:
    forget_peak(peer.pid)
    read_slowly(peer.blob(digest), clients, SECONDS)
    return peak_memory(peer.pid) / 1e6


if __name__ == "__main__":
    run(rows)
