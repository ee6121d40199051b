"""Machines that fail: processes killed, descriptors used up, connections without number."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

import dockmirror
from tests.integration.parts.images import Image
from tests.integration.parts.mirror import Mirror
from tests.integration.parts.process import listens, wait_until

from .load import REPOSITORY, load, survived
from .rows import Record, hardship

pytestmark = pytest.mark.integration

KILLS = 2
RESTARTS = 2
IDLE = 2000
PACKAGE = str(Path(dockmirror.__file__).parent)
TRACEBACK = re.compile(r"Traceback \(most recent call last\):\n(?:\t.*\n)+")


@hardship(f"machine: {KILLS} workers of two killed, one after the other")
def test_workers_killed(mirror: Mirror, images: list[Image], came: Record) -> None:
    """One process after another is killed under load: what a client tries again succeeds."""
    with mirror, load(mirror, REPOSITORY, images) as clients:
        for count in range(1, KILLS + 1):
            wait_until(lambda: clients.right >= 20 * count, "clients are served")  # noqa: B023
            before = _workers(mirror)
            os.kill(before[count % 2], signal.SIGKILL)
            wait_until(lambda: len(set(_workers(mirror)) - set(before)) == 1, "another takes its place")  # noqa: B023
    survived(mirror, clients)
    came(clients)


@hardship(f"machine: {RESTARTS} restarts with a grace period, under load")
def test_restarts(mirror: Mirror, images: list[Image], came: Record) -> None:
    """Under load: what runs is finished first, and what comes too early is tried again."""
    with mirror, load(mirror, REPOSITORY, images) as clients:
        for count in range(1, RESTARTS + 1):
            wait_until(lambda: clients.right >= 20 * count, "clients are served")  # noqa: B023
            mirror.stop(seconds=25)
            assert not listens("127.0.0.1", mirror.port)
            mirror.start()
    survived(mirror, clients)
    assert clients.cut == 0
    came(clients)


def _workers(mirror: Mirror) -> list[int]:
    children = Path(f"/proc/{mirror.pid}/task/{mirror.pid}/children").read_text().split()
    return [int(each) for each in children]
