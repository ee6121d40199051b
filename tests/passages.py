"""Files of the package that a request passes by, counted from the calls of its functions."""

from __future__ import annotations

import sys
import threading
from base64 import b64encode
from collections.abc import Callable, Coroutine
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

import dockmirror
from dockmirror.app.cache import open_cache
from dockmirror.app.cache_stack import StackContext
from dockmirror.app.site_builder import ConnectionShare, SiteBuilder
from dockmirror.app.telemetry import Telemetry
from dockmirror.config.load import load
from dockmirror.web.shared_tables import SharedTables

from .house import DOMAIN, House
from .internet import PASSWORD, USER, Internet

_PACKAGE = str(Path(dockmirror.__file__).parent)
_POLL = 0.01


@frozen
class Passage:
    """The functions that were called during a request.

    :ivar files: how many files of the package functions were called in.
    :ivar changes: how often a call went to another file than the one before it.
    """

    files: int
    changes: int


class CachedHouse(House):
    """The mirror in front of a world of servers, with a cache on the disk, on the real reactor."""

    def __init__(self, directory: str, reactor: Any) -> None:
        self.internet = Internet()
        super().__init__(self.internet)
        settings = load({"domain": DOMAIN, "cache": directory, "cache_size": "1GB"}, {})
        self.cache = open_cache(Path(directory), settings, reactor)
        telemetry = Telemetry.create(self.memory, reactor)
        self.serving = SiteBuilder(
            StackContext(reactor, lambda *_: self.world.agent, telemetry, self.cache),
            lambda _: {},
            self.lines.append,
            maybeDeferred,
            SharedTables.create(),
            ConnectionShare(1000),
        )
        self.serving.apply(settings)
        self.site = self.serving.site


def passages() -> tuple[Passage, Passage, Passage]:
    """Measure a blob from the cache, one that two clients ask for and nobody has, and a login."""
    from twisted.internet import reactor

    running: Any = reactor
    outcome: list[Any] = []

    async def measure() -> None:
        with TemporaryDirectory() as directory:
            outcome.append(await _measure(CachedHouse(directory, running), running))

    def begin() -> None:
        Deferred.fromCoroutine(measure()).addErrback(outcome.append).addBoth(lambda _: running.stop())

    running.callWhenRunning(begin)
    running.run()
    (found,) = outcome
    if isinstance(found, Failure):
        found.raiseException()
    passed: tuple[Passage, Passage, Passage] = found
    return passed


async def _measure(house: CachedHouse, reactor: Any) -> tuple[Passage, Passage, Passage]:
    house.cache.service.startService()
    virtual = f"docker.{DOMAIN}"
    login = "Authorization: Basic " + b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    async def get(host: str, path: str, *headers: str, clients: int = 1) -> None:
        connections = [house.connect().ask("GET", host, path, *headers) for _ in range(clients)]
        while not all(each.answers and each.answer.whole for each in connections):
            house.world.agent.flush()
            await deferLater(reactor, _POLL)

    async def blob(clients: int) -> None:
        await get(DOMAIN, f"/v2/library/busybox/blobs/{house.internet.layer}", clients=clients)

    async def log_in() -> None:
        await get(virtual, "/v2/")
        await get(virtual, f"/v2/auth?service=registry.docker.io&account={USER}", login)

    miss = await _traced(lambda: blob(2))
    hits = [await _traced(lambda: blob(1)) for _ in range(5)]
    hit = min(hits, key=lambda each: (each.changes, each.files))  # others have what runs beside it, too
    logged_in = await _traced(log_in)
    await house.cache.service.stopService()
    return hit, miss, logged_in


async def _traced(ask: Callable[[], Coroutine[Any, Any, None]]) -> Passage:
    called: list[str] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(_PACKAGE):
            called.append(frame.f_code.co_filename)

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        await ask()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return Passage(len(set(called)), sum(one != next for one, next in pairwise(called)))
