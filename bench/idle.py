"""``python -m bench.idle``: the start, the memory and the wake-ups of a mirror that nobody uses."""

from __future__ import annotations

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
    starts, used, sizes, shares, wakes = zip(*measured, strict=True)
    yield Row(case, "start to first answer, s", starts, aim=at_most(0.7))
    yield Row(case, "start, processor s", used)
    yield Row(case, "resident memory of a worker, MB", sizes, aim=at_most(60))
    yield Row(case, "share of it where pages are shared, MB", shares)
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
        workers = [_memory(pid) for pid in family(running.pid) if pid != running.pid]
        size, share = (max(each[key] for each in workers) for key in ("Rss", "Pss"))
    return start, used, size / 1e6, share / 1e6, woken / WATCHED


def _switches(pid: int) -> dict[Path, int]:
    """Return how often each thread has gone to sleep, by proc(5)."""
    counts = {}
    for each in family(pid):
        for status in Path(f"/proc/{each}/task").glob("*/status"):
            lines = status.read_text().splitlines()
            (line,) = (line for line in lines if line.startswith("voluntary_ctxt_switches:"))
            counts[status] = int(line.split()[1])
    return counts


def _memory(pid: int) -> dict[str, int]:
    """Return a process's memory in bytes, by the names of proc(5).

    ``Rss`` is what is resident, ``Pss`` the same with each page divided by the number of its processes.
    """
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name: int(value.split()[0]) * 1024 for name, value in (line.split(":") for line in lines)}


if __name__ == "__main__":
    run(rows)
