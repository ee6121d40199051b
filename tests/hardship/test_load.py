"""Hundreds of clients of every kind, for long, with a cache that is too small for them."""

from __future__ import annotations

import os
import re
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from tests.integration.conftest import MakeDirectory, MakeMachine
from tests.integration.parts.authority import Authority
from tests.integration.parts.chain import new_chain
from tests.integration.parts.mirror import Mirror
from tests.integration.parts.process import wait_until
from tests.integration.parts.programs import require
from tests.long import LONG

from .rows import Record, hardship
from .swarm import PRIVATE, PUBLIC, Process, image_of

pytestmark = pytest.mark.integration

MINUTES = float(os.environ.get("HARDSHIP_MINUTES") or (60 if LONG else 0.25))
PROCESSES, CLIENTS = 2, 100
EVERY = 5.0
"""Seconds between two looks at the mirror."""
ENOUGH = 30.0
"""Minutes from which on a slope says something: until then caches fill."""
KEPT = 2 * 3 * 32 + 20
"""Descriptors: each process keeps connections to registry, token service and host of the blobs."""
UNHANDLED = re.compile(
    r"(?m)^.*(?:Unhandled|#critical|Warning|a worker exited).*|^Traceback.*(?:\n[ a-z].*)*"
)
"""Lines that report a defect, and whole tracebacks."""


@dataclass(frozen=True)
class Look:
    """At a time in minutes, the mirror's memory in megabytes, and its open files and connections."""

    minute: float
    memory: float
    descriptors: int


@hardship(f"load: {PROCESSES * CLIENTS} clients of every kind, a cache of a quarter of what they pull")
def test_load(
    directory: MakeDirectory, make_machine: MakeMachine, authority: Authority, came: Record
) -> None:
    """Every body is right, private images are private, and the mirror does not grow."""
    require("docker-registry")
    settings: dict[str, Any] = {"workers": 2, "tag_ttl": 5, "cache_size": "8MB", "grace": 5}
    with new_chain(directory("load"), make_machine(), authority, {"connections": 32}, **settings) as chain:
        for repository in (*PUBLIC, *PRIVATE):
            chain.registry.push(repository, image_of(repository), "latest")
        before, looks = descriptors(chain.mirror), []
        swarms = [Process(chain.mirror, CLIENTS, MINUTES * 60, seed) for seed in range(PROCESSES)]
        try:
            start = time.monotonic()
            while any(each.running() for each in swarms):
                minute = (time.monotonic() - start) / 60
                looks.append(Look(minute, chain.mirror.rss() / 1e6, descriptors(chain.mirror)))
                assert minute < MINUTES + 5, "they do not come to an end"
                time.sleep(min(EVERY, MINUTES * 60 / 20))
        finally:
            for each in swarms:
                if each.running():
                    each.end()
        swarm = swarms[0].result() + swarms[1].result()
        last = [each for each in looks if MINUTES / 2 <= each.minute <= MINUTES]
        memory, files = slope(last, "memory"), slope(last, "descriptors")
        came(
            f"{MINUTES:g} minutes: {sum(swarm.done.values()):,} things done, {len(swarm.wrong)} wrong,"
            f" {len(swarm.again)} tried again, {len(swarm.failed)} failed; {last[-1].memory:.0f} MB,"
            f" {memory:+.2f} MB a minute; {last[-1].descriptors} descriptors, {files:+.1f} a minute"
        )
        print(*Counter(swarm.again).most_common(20), sep="\n")
        assert swarm.wrong == swarm.failed == []
        assert set(swarm.done) == {"pull", "part", "leave", "head", "nothing", "private", "stranger"}
        assert UNHANDLED.findall(chain.mirror.read_log()) == []
        wait_until(
            lambda: descriptors(chain.mirror) <= before + KEPT, "what was opened is closed", seconds=120
        )
        if MINUTES >= ENOUGH:
            assert memory < 1
            assert abs(files) < 0.1 * last[0].descriptors


def descriptors(mirror: Mirror) -> int:
    """The number of files and connections that its processes have open."""
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in mirror.pids())


def slope(looks: Sequence[Look], of: str) -> float:
    """The growth in a minute."""
    minutes, values = [each.minute for each in looks], [float(getattr(each, of)) for each in looks]
    return statistics.linear_regression(minutes, values).slope
