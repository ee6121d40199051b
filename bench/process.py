"""What the kernel tells of a process, by proc(5)."""

from __future__ import annotations

import os
from pathlib import Path


def peak_memory(pid: int) -> int:
    """The most bytes that the process has had in memory at once (``VmHWM``)."""
    return _status(pid, "VmHWM")


def memory(pid: int) -> int:
    """The bytes that the process has in memory now (``VmRSS``)."""
    return _status(pid, "VmRSS")


def processor_time(pid: int) -> float:
    """The seconds of processor time that the process has used, in user mode and in the kernel."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _status(pid: int, key: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    [line] = (line for line in lines if line.startswith(f"{key}:"))
    return int(line.split()[1]) * 1024
