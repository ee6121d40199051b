"""``python -m bench.idle``: the start, the memory and the wake-ups of a mirror that nobody uses."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from demo.mirror import mirror

from .command import run
from .process import family, processor_time
from .table import Row, at_most

WORKERS = 2
SETTLED = 15.0
"""Seconds after the start, when the first checks have run."""
WATCHED = 30.0
"""Seconds for which wake-ups are counted."""
ROUNDS = 2
_NOWHERE = "http://127.0.0.1:9"


def rows(rounds: int) -> Iterator[Row]:
    """Measure the mirror alone; other load of the machine slows the start, and not its processor time."""
    measured = [_measure() for _ in range(min(rounds, ROUNDS))]
    case = f"idle mirror, {WORKERS} workers"
    starts, used, sizes, wakes = zip(*measured, strict=True)
    yield Row(case, "start to first answer, s", starts, aim=at_most(0.7))
    yield Row(case, "start, processor s", used)
    yield Row(case, "memory of a worker, MB", sizes, aim=at_most(60))
    yield Row(case, "wake-ups a second, of all processes", wakes, aim=at_most(5))


def _measure() -> Sequence[float]:
    began = time.monotonic()
    with mirror(_NOWHERE, f"--workers={WORKERS}") as running:
        start = time.monotonic() - began
        used = processor_time(running.pid)
        time.sleep(SETTLED)
        before = _switches(running.pid)
        time.sleep(WATCHED)
        # threads that have ended meanwhile are left out
        woken = sum(count - before.get(key, 0) for key, count in _switches(running.pid).items())
        size = max(_resident(pid) for pid in family(running.pid) if pid != running.pid)
    return start, used, size / 1e6, woken / WATCHED


def _switches(pid: int) -> dict[Path, int]:
    """Return how often each thread has gone to sleep, by proc(5)."""
    counts = {}
    for each in family(pid):
        for status in Path(f"/proc/{each}/task").glob("*/status"):
            lines = status.read_text().splitlines()
            (line,) = (line for line in lines if line.startswith("voluntary_ctxt_switches:"))
            counts[status] = int(line.split()[1])
    return counts


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    run(rows)
