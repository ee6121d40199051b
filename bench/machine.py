"""The machine that runs the benchmarks."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

_PEERS = ("nginx-light", "docker-registry", "wrk", "skopeo")


def machine() -> str:
    """Describe the machine and the versions in a sentence."""
    gibibytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    kernel = platform.release().partition("-")[0]
    peers = ", ".join(f"{name} {_debian(name)}" for name in _PEERS)
    return (
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores ({_processor()}), {gibibytes:.0f} GiB of memory"
        f", Linux {kernel}, Python {platform.python_version()}, Twisted {version('twisted')}, {peers}."
    )


def _processor() -> str:
    match = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return match[1] if match else platform.machine()


def _debian(package: str) -> str:
    command = ["dpkg-query", "--show", "--showformat=${Version}", package]
    return subprocess.run(command, capture_output=True, text=True).stdout or "of unknown version"  # noqa: S603
