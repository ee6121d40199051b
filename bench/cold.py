"""``python -m bench.cold``: an uncached blob to one client, from an upstream without and with TLS."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .command import run
from .fetching import fetching
from .peers import distribution, nginx
from .table import Aim, Row, at_least, compared

MEBIBYTES = 256
_PLAIN = {distribution.NAME: at_least(1.0), nginx.CACHE: at_least(0.6)}
_TLS = {nginx.CACHE: at_least(0.85)}


def rows(rounds: int) -> Iterator[Row]:
    """Measure rates, the time to the first byte, and the processor time."""
    yield from _pulled("cold blob, plain, 1 client", rounds, False, _PLAIN)
    yield from _pulled("cold blob, TLS, 1 client", rounds, True, _TLS)


def _pulled(case: str, rounds: int, tls: bool, aims: Mapping[str, Aim]) -> Iterator[Row]:
    with fetching(tls) as those:
        pulls = those.pull(rounds, MEBIBYTES, 1)
    yield from compared(case, "MB/s", pulls.rates, aims)
    yield from compared(case, "first byte, ms", pulls.first_bytes)
    yield from compared(case, "processor s/GB", pulls.used)


if __name__ == "__main__":
    run(rows)
