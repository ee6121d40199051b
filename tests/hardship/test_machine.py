"""Machines that fail: processes killed, descriptors used up, connections without number."""

from __future__ import annotations

import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from tests.integration.conftest import MakeDirectory, MakeMachine
from tests.integration.parts.authority import Authority
from tests.integration.parts.chain import new_chain
from tests.integration.parts.images import Image, artifact
from tests.integration.parts.mirror import Mirror
from tests.integration.parts.process import listens, wait_until
from tests.integration.parts.programs import require
from tests.integration.parts.server import Exchange
from tests.long import LONG

from .load import REPOSITORY, load, survived
from .rows import Record, hardship
from .trial import RIGHT, Trial, meddling
from .wire import resets_at

pytestmark = pytest.mark.integration

KILLS = 2
RESTARTS = 2
HOUR, TURNS = 3600, 4 if LONG else 2
MIB = 1024 * 1024
CLOCK = """
import time
real = time.time
time.time = lambda: real() - float(open({file!r}).read() or 0)
"""
"""For :meth:`Machine.patch`: the time of day, set back by the seconds that stand in a file.

A machine's own clock is everybody's, and a namespace has none: ``unshare --time`` moves the others only.
"""


@hardship(f"machine: {KILLS} workers of two killed, one after the other")
def test_workers_killed(mirror: Mirror, images: list[Image], came: Record) -> None:
    """Workers are killed under load, and clients succeed when they try again."""
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
    """The mirror is restarted under load: running transfers end first, and early clients try again."""
    with mirror, load(mirror, REPOSITORY, images) as clients:
        for count in range(1, RESTARTS + 1):
            wait_until(lambda: clients.right >= 20 * count, "clients are served")  # noqa: B023
            mirror.stop(seconds=25)
            assert not listens("127.0.0.1", mirror.port)
            mirror.start()
    survived(mirror, clients)
    assert clients.cut == 0
    came(clients)


@hardship("machine: the clock is set back, an hour each time, while blobs break off")
def test_clock(
    directory: MakeDirectory, make_machine: MakeMachine, authority: Authority, tmp_path: Path, came: Record
) -> None:
    """Pauses and deadlines do not depend on the time of day."""
    require("docker-registry")
    clock, slowest = tmp_path / "clock", 0.0
    clock.write_text("0")
    machine = make_machine()
    machine.patch(CLOCK.format(file=str(clock)))
    with new_chain(directory("clock"), machine, authority) as chain:
        for turn in range(1, TURNS + 1):
            pushed, repository = artifact(f"clock {turn}", size=MIB), f"library/clock-{turn}"
            chain.registry.push(repository, pushed, "latest")
            trial = Trial(chain, pushed, repository, "blob")

            def breaks(exchange: Exchange, data: bytes, turn: int = turn) -> None:
                resets_at(100_000)(exchange, data)
                set_back = partial(clock.write_text, str(HOUR * turn))
                threading.Timer(0.3, set_back).start()  # in the pause before the next attempt

            start = time.monotonic()
            with meddling("blobs", *[resets_at(100_000)] * 2, breaks)(trial):
                assert trial.pull() == RIGHT
            slowest = max(slowest, time.monotonic() - start)
    assert slowest < 20
    came(f"{TURNS} times the right bytes, after {slowest:.0f} s at most")


def _workers(mirror: Mirror) -> list[int]:
    children = Path(f"/proc/{mirror.pid}/task/{mirror.pid}/children").read_text().split()
    return [int(each) for each in children]
