"""``python -m bench.together``: a blob that is not in the cache, to 16 clients at once."""

from __future__ import annotations

from collections.abc import Iterator

from .command import run
from .fetching import fetching
from .peers import distribution, nginx
from .peers.mirror import NAME
from .table import Row, at_least, at_most, compared

CLIENTS = 16
MEBIBYTES = 64
CAPPED_MEBIBYTES = 48
RATE = 50_000_000
_RATES = {distribution.NAME: at_least(4.0)}
_FIRST = {nginx.CACHE: at_most(0.05)}


def rows(rounds: int) -> Iterator[Row]:
    """Measure rates, the last client's first byte, and the number of fetches from the upstream."""
    yield from _pulled(f"cold blob, plain, {CLIENTS} clients", rounds, False)
    yield from _pulled(f"cold blob, TLS, {CLIENTS} clients", rounds, True)
    yield from _capped(f"cold blob, {RATE // 10**6} MB/s a connection, {CLIENTS} clients", rounds)


def _pulled(case: str, rounds: int, tls: bool) -> Iterator[Row]:
    with fetching(tls) as those:
        pulls = those.pull(rounds, MEBIBYTES, CLIENTS)
    yield from compared(case, "MB/s", pulls.rates, _RATES)
    yield from compared(case, "last first byte, ms", pulls.first_bytes, _FIRST)
    yield Row(case, "from the upstream, in blobs", pulls.fetched[NAME], aim=at_most(1.0))
    yield from compared(case, "from the upstream, in blobs", pulls.fetched)


def _capped(case: str, rounds: int) -> Iterator[Row]:
    with fetching(rate=RATE) as those:
        alone = those.pull(rounds, CAPPED_MEBIBYTES, 1)
        pulls = those.pull(rounds, CAPPED_MEBIBYTES, CLIENTS)
    yield Row(case, "s", pulls.seconds[NAME], "1 client of it", alone.seconds[NAME], at_most(1.1))
    yield from compared(case, "s", pulls.seconds)
    yield from compared(case, "last first byte, ms", pulls.first_bytes, _FIRST)
    yield Row(case, "from the upstream, in blobs", pulls.fetched[NAME], aim=at_most(1.0))


if __name__ == "__main__":
    run(rows)
