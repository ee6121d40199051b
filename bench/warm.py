"""``python -m bench.warm``: a large cached blob to 1, 8 and 64 connections, repeatedly."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from attrs import frozen

from .blobs import make_blob, verify
from .clients.drain import drain
from .command import run
from .peers import distribution, nginx
from .peers.mirror import mirrored
from .peers.origin import origin
from .peers.peer import Peer
from .process import processor_time
from .rounds import in_turn
from .table import Row, at_least, compared

MEBIBYTES = 512
CONNECTIONS = (1, 8, 64)
SECONDS = 1.0
_AIMS = {nginx.STATIC: at_least(1.0), distribution.NAME: at_least(1.2)}


@frozen
class Served:
    """Megabytes a second, and seconds of processor time for a gigabyte."""

    rate: float
    cost: float


def rows(rounds: int) -> Iterator[Row]:
    """Measure two rows for each number of connections and each peer."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = stack.enter_context(origin(directory))
        peers = [
            stack.enter_context(mirrored(upstream.url)),
            stack.enter_context(nginx.static(directory, upstream.blobs)),
            stack.enter_context(distribution.pull_through(directory, upstream.url)),
        ]
        digest = make_blob(upstream.blobs, MEBIBYTES)
        for peer in peers:
            verify(peer.blob(digest), digest)
        for connections in CONNECTIONS:
            case = f"warm blob, {connections} connections"
            measures = {peer.name: partial(_serve, peer, digest, connections) for peer in peers}
            got = in_turn(rounds, measures)
            yield from compared(
                case, "MB/s", {n: [s.rate for s in served] for n, served in got.items()}, _AIMS
            )
            costs = {name: [each.cost for each in served] for name, served in got.items()}
            yield from compared(case, "processor s/GB", costs)


def _serve(peer: Peer, digest: str, connections: int, number: int) -> Served:
    used = processor_time(peer.pid)
    drained = drain(peer.blob(digest), connections, SECONDS)
    return Served(drained.rate, (processor_time(peer.pid) - used) / (drained.bytes / 1e9))


if __name__ == "__main__":
    run(rows)
