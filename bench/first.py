"""``python -m bench.first``: the first byte of a blob that is not in the cache, from a slow upstream."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial

from .blob import LargeBlob
from .capped import capped_registry
from .clients.drain import drain
from .command import run
from .peers.mirror import NAME, mirrored
from .peers.peer import Peer
from .rounds import in_turn
from .table import Row, at_most

AWAY = 0.05
"""Seconds until the upstream answers."""
RATE = 50_000_000
MEBIBYTES = 4
_UPSTREAM = "the upstream itself"


def rows(rounds: int) -> Iterator[Row]:
    """Measure the milliseconds to the first byte, beside those of a direct client of the upstream."""
    blobs = [LargeBlob(MEBIBYTES, random.Random(number).randbytes(2**20)) for number in range(rounds + 1)]
    with ExitStack() as stack:
        registry = stack.enter_context(capped_registry(blobs, RATE, AWAY))
        peers = {
            NAME: stack.enter_context(mirrored(registry.url)),
            _UPSTREAM: Peer(_UPSTREAM, f"{registry.url}/v2/anything", 0),
        }
        got = in_turn(rounds, {name: partial(_first, peer, blobs) for name, peer in peers.items()})
    case = f"cold blob, {AWAY * 1000:g} ms away, 1 client"
    yield Row(case, "first byte, ms", got[NAME], _UPSTREAM, got[_UPSTREAM], at_most(1.3))


def _first(peer: Peer, blobs: Sequence[LargeBlob], number: int) -> float:
    return drain(peer.blob(blobs[number].digest())).first_bytes[-1] * 1e3


if __name__ == "__main__":
    run(rows)
