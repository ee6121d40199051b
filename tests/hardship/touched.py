"""The files that processes name to the kernel, while they are looked at."""

from __future__ import annotations

import os.path
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.integration.parts.process import wait_until
from tests.integration.parts.programs import require

_CALL = re.compile(r"\w+\((?P<arguments>.*)")
_NAMED = re.compile(r'(?:(?:AT_FDCWD|\d+)<(?P<directory>[^>]*)>, )?"(?P<name>(?:[^"\\]|\\.)*)"')
_READ = ("/proc/", "/dev/", "/sys/", "/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/host.conf",
         "/etc/gai.conf", "/etc/localtime", "/usr/share/zoneinfo")  # fmt: skip
"""The files that the C library and Python read by themselves."""


class Touched:
    """The names of files in system calls."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    @property
    def count(self) -> int:
        """The number of different names."""
        return len(self.names)

    def outside(self, *directories: Path) -> list[str]:
        """The names outside of these directories, of programs and of their libraries."""
        checkout = Path(__file__).parents[2]
        homes = (
            *map(str, directories),
            sys.prefix,
            sys.base_prefix,
            f"{checkout}/dockmirror",
            "/usr/lib",
            "/lib",
        )
        inside = tuple(f"{home}/" for home in homes)
        return sorted(
            name
            for name in self.names
            if not f"{os.path.normpath(name)}/".startswith((*inside, *_READ)) and name != str(checkout)
        )


@contextmanager
def touched_by(pids: Iterable[int]) -> Iterator[Touched]:
    """Record the names that these processes and their threads use until the end of the block."""
    require("strace")
    touched = Touched()
    with tempfile.TemporaryDirectory() as directory:
        traced = Path(directory, "traced")
        attached = [argument for pid in pids for argument in ("-p", str(pid))]
        command = ["strace", "-f", "-y", "-s", "4096", "-o", str(traced), "-e", "trace=%file", *attached]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:  # noqa: S603
            said = strace.stderr
            assert said is not None
            wait_until(lambda: "attached" in said.readline(), "strace traces")
            try:
                yield touched
            finally:
                strace.terminate()
                strace.communicate(timeout=30)
        touched.names |= _names(traced.read_text(errors="replace"))


def _names(traced: str) -> set[str]:
    found = set()
    for line in traced.splitlines():
        call = _CALL.search(line)
        for named in _NAMED.finditer(call["arguments"] if call else ""):
            found.add(os.path.join(named["directory"] or "", named["name"]))
    return found - {""}  # what is open already
