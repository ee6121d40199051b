"""``python -m bench.distant``: a cold image over an emulated long line, beside the same client directly."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from .clients import containerd, docker, skopeo
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
        clients: dict[str, Callable[[str], float]] = {
            "skopeo": skopeo.pull,
            "docker": stack.enter_context(docker.daemon()),
            "containerd": stack.enter_context(containerd.daemon()),
        }
        for delay, rate in LINES:
            far = stack.enter_context(line(_port(upstream), rate, delay))
            for client, pull in clients.items():
                got = in_turn(
                    min(rounds, ROUNDS),
                    {DIRECT: partial(_direct, pull, upstream, far), NAME: partial(_mirrored, pull, far)},
                )
                case = (
                    f"cold image of {LAYERS} layers, {LAYERS * LAYER_BYTES // 10**6} MB, by {client},"
                    f" {delay * 1000:g} ms away, {rate // 10**6} MB/s a connection"
                )
                yield Row(case, "s", got[NAME], DIRECT, got[DIRECT], at_most(0.4))


def _port(peer: Peer) -> int:
    return int(peer.url.partition("//")[2].partition("/")[0].rpartition(":")[2])


def _direct(pull: Callable[[str], float], upstream: Peer, far: int, number: int) -> float:
    return pull(f"127.0.0.1:{far}/{repository(upstream.name)}:latest")


def _mirrored(pull: Callable[[str], float], far: int, number: int) -> float:
    with mirrored(f"http://127.0.0.1:{far}") as peer:
        host, _, path = peer.url.partition("//")[2].partition("/v2/")
        return pull(f"{host}/{path}:latest")


if __name__ == "__main__":
    run(rows)
