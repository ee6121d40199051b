"""``python -m bench.push``: the memory that simultaneous pushes of 500 MB, or of ``--mebibytes``, take."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

from attrs import field, frozen

from .clients.push import MIB, Blobs
from .command import parser
from .peers.mirror import mirrored
from .peers.peer import Peer, repository
from .peers.sink import sink
from .process import forget_peak, peak_memory, wait_until_idle
from .rounds import in_turn
from .table import Row, at_most, compared, table

PUSHES = 20
MEBIBYTES = 477
"""Of each: 500 MB."""
ROUNDS = 1
"""At most: what is pushed is 10 GB each time, and a round before it is thrown away."""
LIMIT = 100
"""Megabytes that a worker may take more than it had."""
RELAY = "the mirror without a cache"
_HOST = "docker.localhost"


def rows(rounds: int, mebibytes: int = MEBIBYTES) -> Iterator[Row]:
    """Measure the rate beside a direct push to the registry, and the growth of a worker's memory."""
    count = min(rounds, ROUNDS)
    blobs = [Blobs(PUSHES, mebibytes, number) for number in range(count + 1)]
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        registry = stack.enter_context(sink(directory))
        origin = registry.url.partition("/v2/")[0]
        caching = stack.enter_context(mirrored(origin, f"--cache={directory}/cache", writes=True))
        relay = stack.enter_context(mirrored(origin, "--cache-size=0", name=RELAY, writes=True))
        peers = [_Through(caching, blobs, directory), _Through(relay, blobs, directory)]
        got = in_turn(
            count,
            {
                **{each.peer.name: each.measure for each in peers},
                registry.name: lambda number: blobs[number].push(registry.url),
            },
        )
    size = mebibytes * MIB / 1e6
    case = f"{PUSHES} blobs of {size:.0f} MB pushed at once"
    rates = {name: [PUSHES * size / each for each in seconds] for name, seconds in got.items()}
    yield from compared(case, "MB/s", rates)
    for each in peers:
        measured = f"memory more{'' if each.peer is caching else ', without a cache'}, MB"
        yield Row(case, measured, each.grown[1:], aim=at_most(LIMIT))


@frozen
class _Through:
    """Pushes through a mirror."""

    peer: Peer
    blobs: list[Blobs]
    directory: Path
    grown: list[float] = field(factory=list)

    def measure(self, number: int) -> float:
        """Return the seconds of a push."""
        forget_peak(self.peer.pid)
        before = peak_memory(self.peer.pid)
        url = f"http://{urlsplit(self.peer.url).netloc}/v2/{repository(self.peer.name)}"
        seconds = self.blobs[number].push(url, _HOST)
        self.grown.append((peak_memory(self.peer.pid) - before) / 1e6)
        wait_until_idle(self.peer.pid)
        for path in self.directory.rglob("*"):  # see ``Fetching``
            if path.is_file() and path.stat().st_size > MIB:
                path.unlink()
        return seconds


if __name__ == "__main__":
    arguments = parser("One case; see the module.")
    arguments.add_argument("--mebibytes", type=int, default=MEBIBYTES, help="of each blob")
    asked = arguments.parse_args()
    print(table(rows(asked.rounds, asked.mebibytes)))
