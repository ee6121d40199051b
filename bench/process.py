"""Figures of a process and its children, by proc(5)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

_IDLE = 0.25


def peak_memory(pid: int) -> int:
    """Return the peak of their memory in bytes since ``forget_peak`` (``VmHWM``)."""
    return sum(_status(each, "VmHWM") for each in family(pid))


def forget_peak(pid: int) -> None:
    """Reset the peak to the memory in use."""
    for each in family(pid):
        Path(f"/proc/{each}/clear_refs").write_text("5")


def processor_time(pid: int) -> float:
    """Return the seconds of processor time that they have used, in user mode and in the kernel."""
    return sum(_ticks(each) for each in family(pid)) / os.sysconf("SC_CLK_TCK")


def wait_until_idle(pid: int) -> None:
    """Wait until they have used no processor time for a while, so that background work is done."""
    before = -1.0
    while (used := processor_time(pid)) != before:
        before = used
        time.sleep(_IDLE)


def family(pid: int) -> Iterator[int]:
    """Yield the process and its children."""
    yield pid
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for child in (thread / "children").read_text().split():
            yield from family(int(child))


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _status(pid: int, key: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    [line] = (line for line in lines if line.startswith(f"{key}:"))
    return int(line.split()[1]) * 1024
