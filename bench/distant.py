"""``python -m bench.distant``: a cold image over an emulated long line, beside the same client directly."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from .clients import skopeo
from .command import run
from .images import push_image
from .line import line
from .peers import distribution
from .peers.mirror import NAME, mirrored
from .peers.peer import Peer, repository
from .rounds import in_turn
from .table import Row, at_most

LAYERS = 40
LAYER_BYTES = 10_000_000
LINES = ((0.05, 20_000_000), (0.15, 4_000_000))
"""Seconds of a round trip, and bytes per second of each connection."""
ROUNDS = 2
"""At most: the line sets the pace, so that rounds hardly differ."""
DIRECT = "directly"


def rows(rounds: int) -> Iterator[Row]:
    """Measure pulls through the mirror, with the settings as they come, beside direct pulls."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = stack.enter_context(distribution.registry(directory))
        push_image(upstream, [repository(NAME), repository(upstream.name)], LAYERS, LAYER_BYTES, directory)
        for delay, rate in LINES:
            far = stack.enter_context(line(_port(upstream), rate, delay))
            got = in_turn(
                min(rounds, ROUNDS),
                {DIRECT: partial(_direct, upstream, far), NAME: partial(_mirrored, far)},
            )
            case = (
                f"cold image of {LAYERS} layers, {LAYERS * LAYER_BYTES // 10**6} MB, by skopeo,"
                f" {delay * 1000:g} ms away, {rate // 10**6} MB/s a connection"
            )
            yield Row(case, "s", got[NAME], DIRECT, got[DIRECT], at_most(0.4))


def _port(peer: Peer) -> int:
    return int(peer.url.partition("//")[2].partition("/")[0].rpartition(":")[2])


def _direct(upstream: Peer, far: int, number: int) -> float:
    return skopeo.pull(f"127.0.0.1:{far}/{repository(upstream.name)}:latest")


def _mirrored(far: int, number: int) -> float:
    with mirrored(f"http://127.0.0.1:{far}") as peer:
        host, _, path = peer.url.partition("//")[2].partition("/v2/")
        return skopeo.pull(f"{host}/{path}:latest")


if __name__ == "__main__":
    run(rows)
