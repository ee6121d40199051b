"""``python -m bench.segments``: a blob from a distant upstream, by one connection and by four."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial

from .blob import LargeBlob
from .blobs import verify
from .capped import capped_registry
from .clients.drain import drain
from .command import run
from .peers.mirror import mirrored
from .peers.peer import Peer
from .rounds import in_turn
from .table import Row, at_most

SEGMENTS = 4
RATE = 10_000_000
"""Bytes a second that one connection of the upstream sends."""
AWAY = 0.1
"""Seconds until the upstream answers."""
MEBIBYTES = 64
ROUNDS = 3
"""At most: the upstream sets the pace, so that rounds hardly differ."""
_ONE, _SEVERAL = "one connection", f"{SEGMENTS} connections"


def rows(rounds: int) -> Iterator[Row]:
    """Measure the seconds by several connections beside those by one."""
    count = min(rounds, ROUNDS)
    blobs = [LargeBlob(MEBIBYTES, random.Random(number).randbytes(2**20)) for number in range(count + 1)]
    with ExitStack() as stack:
        registry = stack.enter_context(capped_registry(blobs, RATE, AWAY))
        peers = {
            name: stack.enter_context(mirrored(registry.url, segments=segments))
            for name, segments in ((_ONE, 1), (_SEVERAL, SEGMENTS))
        }
        got = in_turn(count, {name: partial(_pull, peer, blobs) for name, peer in peers.items()})
    case = f"cold blob, {RATE // 10**6} MB/s a connection, {AWAY * 1000:g} ms away, {_SEVERAL}"
    yield Row(case, "s", got[_SEVERAL], _ONE, got[_ONE], at_most(0.4))


def _pull(peer: Peer, blobs: Sequence[LargeBlob], number: int) -> float:
    digest = blobs[number].digest()
    seconds = drain(peer.blob(digest)).seconds
    if not number:
        verify(peer.blob(digest), digest)
    return seconds


if __name__ == "__main__":
    run(rows)
