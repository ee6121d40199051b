"""``python -m bench``: run every case and write one table to ``bench/RESULTS.md``."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from . import (
    accel,
    admission,
    cold,
    distant,
    first,
    history,
    hot,
    idle,
    image,
    manifests,
    objects,
    push,
    ranges,
    requests,
    segments,
    slow,
    store,
    tags,
    together,
    warm,
    workers,
)
from .command import rounds
from .machine import machine
from .table import Row, table

CASES = (
    warm,
    workers,
    accel,
    cold,
    distant,
    first,
    together,
    manifests,
    admission,
    requests,
    history,
    image,
    segments,
    ranges,
    slow,
    idle,
    push,
    tags,
    store,
    objects,
    hot,
)
_RESULTS = Path(__file__).with_name("RESULTS.md")
_TEXT = """# Results

Written by `make bench`. [docs/explanation/performance.md](../docs/explanation/performance.md) says
how it measures and what the columns mean.

{table}

Medians of {rounds} rounds.

{machine}
"""


def main() -> None:
    """Print the table and write it to the file."""
    count = rounds("Every case; the table goes to bench/RESULTS.md.")
    rows: list[Row] = []
    for case in CASES:
        started = time.monotonic()
        rows += case.rows(count)
        print(f"{case.__name__}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    text = _TEXT.format(table=table(rows), rounds=count, machine=machine())
    print(text)
    _RESULTS.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
