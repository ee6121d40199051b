"""The figures, kept in ``bench/RESULTS.md`` with what they were measured on."""

from __future__ import annotations

import os
import platform
import re
import time
from importlib.metadata import version
from pathlib import Path

_FILE = Path(__file__).with_name("RESULTS.md")
_HEAD = """# Results

Written by `make bench`; each run replaces its own section.
"""


def record(title: str, text: str) -> None:
    """Puts a section in the place of the one with that title, or at the end."""
    sections = _sections(_FILE.read_text("utf-8") if _FILE.exists() else _HEAD)
    sections[title] = f"## {title}\n\n{text.rstrip()}\n\n{_machine()}\n"
    _FILE.write_text("\n".join(sections.values()), "utf-8")


def _sections(text: str) -> dict[str, str]:
    """By title; what stands before the first is under no title."""
    parts = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    return {_title(part): f"{part.rstrip()}\n" for part in parts}


def _title(part: str) -> str:
    return part.partition("\n")[0].removeprefix("## ") if part.startswith("## ") else ""


def _machine() -> str:
    """The machine and the versions, in a sentence."""
    gibibytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    kernel = platform.release().partition("-")[0]
    return (
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores ({_processor()}), {gibibytes:.0f} GiB of memory"
        f", Linux {kernel}, Python {platform.python_version()}, Twisted {version('twisted')}."
    )


def _processor() -> str:
    match = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return match[1] if match else platform.machine()
