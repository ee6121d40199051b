"""Processes that are killed, at any moment and at chosen ones."""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.parts.images import Image
from tests.integration.parts.mirror import Mirror
from tests.integration.parts.process import wait_until
from tests.integration.parts.programs import require
from tests.long import LONG

from .load import REPOSITORY, Load, fetch, load, survived
from .rows import Record, hardship

pytestmark = pytest.mark.integration

KILLS = 200 if LONG else 5
SETTLES = 0.8
"""Seconds within which it is killed after it has answered."""
CALLS = {
    "rename": (1, 2, 5),
    "fsync": (1, 3, 5),
    "pwrite64": (20, 1, 100),
    "sendfile": (20, 1, 100),
    "mkdir": (1, 3, 5),
    **({"utimensat": (1, 3, 5), "flock": (1, 2, 5), "unlink": (1, 3, 10)} if LONG else {}),
}
"""The system calls of the store and the senders, with the ordinals at which a process is killed."""
MOMENTS = [(call, nth) for call, nths in CALLS.items() for nth in (nths if LONG else nths[:1])]


@hardship("machine: killed at random moments, under load")
def test_killed(mirror: Mirror, images: list[Image], came: Record) -> None:
    """The mirror is killed at random moments, and started again at once."""
    chance = random.Random(1)
    mirror.configure(workers=1)
    with mirror:
        with load(mirror, REPOSITORY, images, tries=10_000) as clients:
            for _ in range(KILLS):
                time.sleep(chance.uniform(0, SETTLES))
                mirror.kill()
                mirror.start()
            before = clients.right
            wait_until(lambda: clients.right > before + 20, "clients are served")
        came(f"{KILLS} kills: {clients}")
    survived(mirror, clients)


@hardship("machine: killed at chosen system calls")
def test_killed_at_a_call(mirror: Mirror, images: list[Image], came: Record) -> None:
    """The mirror is killed at a system call, and the next process goes on from the disk's state."""
    require("strace")
    mirror.configure(workers=1)
    clients = Load()
    for call, nth in MOMENTS:
        shutil.rmtree(mirror.cache, ignore_errors=True)
        with mirror:
            with _killed_at(mirror.pid, call, nth) as dead:
                for turn in range(1000):
                    fetch(mirror, REPOSITORY, images[turn % len(images)], clients, tries=1)
                    if dead():
                        break
                assert dead(), f"it makes no {call}"
            mirror.kill()
            mirror.start()
            for each in images:
                fetch(mirror, REPOSITORY, each, right := Load(), tries=1)
                assert (right.right, right.wrong) == (1, []), call
                clients.right += 1
    assert clients.wrong == []
    clients.lost.clear()  # those that were running: each came when it was asked for again
    came(f"{len(MOMENTS)} kills: {clients}")
    survived(mirror, clients)


@contextmanager
def _killed_at(pid: int, call: str, nth: int) -> Iterator[Callable[[], bool]]:
    """The process ends at that call."""
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-p", str(pid)]
    tracer = subprocess.Popen([*command, "-e", f"inject={call}:signal=SIGKILL:when={nth}"])  # noqa: S603
    try:
        wait_until(lambda: "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text(), "it is traced")
        yield lambda: _state(pid) in "ZX"
    finally:
        tracer.kill()
        tracer.wait()


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
