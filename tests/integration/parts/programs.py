"""Programs that have to be installed for a test."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from .process import CLEAN_ENVIRONMENT

_PACKAGES = {
    "chromedriver": "chromium-driver", "ctr": "containerd", "danted": "dante-server", "docker": "docker.io",
    "dockerd": "docker.io", "ip": "iproute2", "nginx": "nginx-light", "pebble-challtestsrv": "pebble",
    "promtool": "prometheus", "systemd-analyze": "systemd", "tinyproxy": "tinyproxy-bin",
    "unshare": "util-linux",
}  # fmt: skip
"""Debian's package of a program, where it has another name."""
_NOT_INSTALLED = "not installed: "
_NOT_ROOT = "the tests do not run as root"


def require(*programs: str) -> None:
    """Skip without root or one of the programs, or fail where the environment says that all must be there."""
    require_installed(*programs)
    if os.geteuid() != 0:
        _skip(_NOT_ROOT)


def require_installed(*programs: str) -> None:
    """Skip like ``require``, but run without root."""
    missing = [each for each in programs if shutil.which(each, path=CLEAN_ENVIRONMENT["PATH"]) is None]
    if missing:
        _skip(_NOT_INSTALLED + ", ".join(missing))


def _skip(reason: str) -> None:
    if os.environ.get("REQUIRE_INTEGRATION") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def describe_skips(reasons: Iterable[str]) -> str:
    """Return one line that says how many tests were skipped, why, and what to install."""
    listed = list(reasons)
    missing = [each.removeprefix(_NOT_INSTALLED) for each in listed if each.startswith(_NOT_INSTALLED)]
    programs = sorted({program for each in missing for program in each.split(", ")})
    not_installed = _NOT_INSTALLED + ", ".join(Path(program).name for program in programs)
    counts = Counter(not_installed if each.startswith(_NOT_INSTALLED) else each for each in listed)
    why = "; ".join(f"{reason} ({count})" for reason, count in counts.most_common())
    # A program with a path is one that make installs.
    packages = sorted({package_of(program) for program in programs if "/" not in program})
    install = f"; apt-get install {' '.join(packages)}" if packages else ""
    return f"{len(listed)} skipped: {why}{install}"


def package_of(program: str) -> str:
    """Return the name of Debian's package that has the program."""
    return _PACKAGES.get(program, program)
