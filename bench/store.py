"""``python -m bench.store``: a store of 10, 10,000 and 1,000,000 blobs; fewer rounds leave the last out."""

from __future__ import annotations

import http.client
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

from dockmirror.oci.digest import Digest
from dockmirror.store import layout
from dockmirror.store.eviction.eviction import Sweep
from dockmirror.store.eviction.store_budget import Budget

from .blobs import make_blob
from .command import ROUNDS, run
from .peers.mirror import mirrored
from .peers.origin import origin
from .peers.peer import Peer
from .rounds import in_turn
from .table import Row, at_most

FEW = 10
MANY = (10_000, 1_000_000)
REQUESTS = 500
_DAY = 24 * 3600.0
_LARGE, _LARGE_BYTES = 1000, 2**20
_UNLIMITED = 2**62
_IN_MEMORY = "/dev/shm"  # noqa: S108  # a disk would take minutes to make and to remove so many files


def rows(rounds: int) -> Iterator[Row]:
    """Measure a start, a hit, a scan, and the eviction of a tenth of the bytes, which are 100 blobs."""
    for count in MANY if rounds >= ROUNDS else MANY[:1]:
        with tempfile.TemporaryDirectory(dir=_IN_MEMORY) as name:
            few, many = Path(name, "few"), Path(name, "many")
            fill(few, FEW)
            fill(many, count)
            yield from _beside(count, few, many, Path(name), rounds)


def fill(root: Path, count: int) -> None:
    """Write so many unverified blobs; the oldest ones have nearly all of the bytes."""
    for number in range(count):
        digest = Digest.parse(f"sha256:{sha256(str(number).encode()).hexdigest()}")
        path = root / layout.data(digest)
        path.parent.mkdir(parents=True)
        with path.open("wb") as file:
            file.truncate(_LARGE_BYTES if number < _LARGE else 1)


def _beside(count: int, few: Path, many: Path, directory: Path, rounds: int) -> Iterator[Row]:
    case, beside = f"store of {count:,} blobs", f"store of {FEW}"
    _sweep(few, _UNLIMITED, 2)
    walk, held = _sweep(many, _UNLIMITED, 2)
    with ExitStack() as stack:
        upstream = stack.enter_context(origin(directory))
        digest = make_blob(upstream.blobs, 1)
        peers, starts = {}, {}
        for name, root in ((beside, few), (case, many)):
            started = time.monotonic()
            peers[name] = stack.enter_context(mirrored(upstream.url, f"--cache={root}"))
            starts[name] = [time.monotonic() - started]
        got = in_turn(rounds, {name: partial(_hit, peer, digest) for name, peer in peers.items()})
    yield Row(case, "start, s", starts[case], beside, starts[beside])
    yield Row(case, "hit, ms", got[case], beside, got[beside], at_most(1.2))
    yield Row(case, "walk, s", [walk])
    yield Row(case, "walk and eviction of 100, s", [_sweep(many, held - 1, 4)[0]])


def _hit(peer: Peer, digest: str, number: int) -> float:
    """Return the median time of many requests for one byte on one connection."""
    parts = urlsplit(peer.blob(digest))
    connection = http.client.HTTPConnection(parts.netloc)
    took = []
    for _ in range(REQUESTS):
        started = time.perf_counter()
        connection.request("GET", parts.path, headers={"Range": "bytes=0-0"})
        connection.getresponse().read()
        took.append(time.perf_counter() - started)
    connection.close()
    return statistics.median(took) * 1e3


def _sweep(root: Path, budget: int, days: int) -> tuple[float, int]:
    """Return the seconds of a sweep so many days ahead, when everything is old, and the bytes left then."""
    started = time.monotonic()
    swept = Sweep(root, Budget(budget)).run(0, time.time() + days * _DAY)
    assert swept
    return time.monotonic() - started, swept.size


if __name__ == "__main__":
    run(rows)
