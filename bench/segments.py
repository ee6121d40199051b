"""``python -m bench.segments``: a blob from a distant upstream, by one connection and by several.

Each of the upstream's connections is slow, and each of its answers comes late, as over a long link.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys

from attrs import frozen

from demo.mirror import mirror

from .blob import LargeBlob
from .cache import pull
from .capped import Capped, capped_registry
from .results import record

SEGMENTS = 4
RATE = 10_000_000
"""Bytes a second that one connection of the upstream sends."""
AWAY = 0.1
"""Seconds until the upstream answers."""
MEBIBYTES = 128
RUNS = 3
LIMIT = 2.5
"""How many times as long one connection must take."""
_MEBIBYTE = 1024 * 1024


@frozen
class Pulled:
    """One blob, cold.

    :ivar seconds: until the client had every byte.
    :ivar fetched: bytes that the upstream sent for it, in blobs.
    """

    seconds: float
    fetched: float


def main() -> int:
    """Prints a table, and keeps the figures of a whole run."""
    parser = argparse.ArgumentParser(description="A cold blob by one connection and by several.")
    parser.add_argument("--mebibytes", type=int, default=MEBIBYTES, help="of each blob")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--segments", type=int, default=SEGMENTS)
    given = parser.parse_args()
    blobs = [
        LargeBlob(given.mebibytes, random.Random(number).randbytes(_MEBIBYTE)) for number in range(given.runs)
    ]
    with capped_registry(blobs, RATE, AWAY) as registry:
        single = measure(registry, blobs, 1)
        several = measure(registry, blobs, given.segments)
    ratio = statistics.median(one.seconds / other.seconds for one, other in zip(single, several, strict=True))
    text = _text(single, several, ratio, given.mebibytes, given.segments)
    print(text)
    if vars(given) == {"mebibytes": MEBIBYTES, "runs": RUNS, "segments": SEGMENTS}:
        record("A cold blob in segments", text)
    return 0 if ratio > LIMIT else 1


def measure(registry: Capped, blobs: list[LargeBlob], segments: int) -> list[Pulled]:
    """Each blob to one client of a new mirror that may open so many connections for it."""
    pulled = []
    with mirror(registry.url, segments=segments) as running:
        for blob in blobs:
            before = registry.sent[blob.digest()]
            seconds = pull(running, blob, 1)
            pulled.append(Pulled(seconds, (registry.sent[blob.digest()] - before) / blob.size))
    return pulled


def _text(single: list[Pulled], several: list[Pulled], ratio: float, mebibytes: int, segments: int) -> str:
    rows = [
        f"| run {number} | {one.seconds:.2f} | {other.seconds:.2f} | {one.seconds / other.seconds:.2f}"
        f" | {other.fetched:.2f} |"
        for number, (one, other) in enumerate(zip(single, several, strict=True), 1)
    ]
    return "\n".join(
        [
            f"| | one connection, s | {segments} connections, s | ratio | bytes from upstream, in blobs |",
            "| --- | --- | --- | --- | --- |",
            *rows,
            "",
            f"The median of the ratios is {ratio:.2f}. A blob of {mebibytes} MiB that is not held, from an"
            f" upstream that sends {RATE / 1e6:.0f} MB a second on a connection, {AWAY * 1000:.0f} ms after"
            f" it was asked. The client's bytes were verified. The ratio must be above {LIMIT}.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
