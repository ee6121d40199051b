"""The whole mirror with a cache on the disk, whose threads hand results to a clock that a test winds."""

# mypy: allow-untyped-calls

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from pathlib import Path
from queue import Queue
from threading import Barrier
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock

from dockmirror.app.accounts import load_accounts
from dockmirror.app.cache import THREADS, open_cache
from dockmirror.app.cache_stack import StackContext
from dockmirror.app.site_builder import ConnectionShare, SiteBuilder
from dockmirror.app.telemetry import Telemetry
from dockmirror.concurrency.coroutines import gather
from dockmirror.config.load import load
from dockmirror.web.shared_tables import SharedTables

from ..fakes import World
from ..house import DOMAIN, Answer, House

PATIENCE = 60.0
"""Seconds after which a thread that does not answer fails the test."""

_TURNS = 3


class ThreadedClock(Clock):
    """A clock that runs what threads hand over when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: Queue[Callable[[], None]] = Queue()

    def callFromThread(self, call: Callable[..., Any], *arguments: Any, **keywords: Any) -> None:
        self._calls.put(partial(call, *arguments, **keywords))

    def run_next(self) -> None:
        """Wait for a thread, and run what it hands over."""
        self._calls.get(timeout=PATIENCE)()


class StoringHouse(House):
    """The mirror in front of a world of servers, with a cache in a directory.

    :param environ: holds the passwords of the mirror's accounts.
    """

    def __init__(self, world: World, root: Path, environ: Mapping[str, str], **settings: Any) -> None:
        super().__init__(world)
        self._root = root
        self._environ = environ
        self.clock = self.threads = ThreadedClock()
        self.clock.advance(1_800_000_000.0)
        self.cache = open_cache(root, self._load(settings), self.clock)
        self.watched = Telemetry.create(self.memory, self.clock)
        self.metrics = self.watched.metrics
        self.serving = SiteBuilder(
            StackContext(self.clock, lambda *_: world.agent, self.watched, self.cache),
            partial(load_accounts, environ=environ, run=self._run, clock=self.clock),
            self.lines.append,
            maybeDeferred,
            SharedTables.create(),
            ConnectionShare(1000),
        )
        self.reload(**settings)
        self.site = self.serving.site
        self.cache.service.startService()

    def reload(self, **settings: Any) -> None:
        """Put other settings into force."""
        self.serving.apply(self._load(settings))

    def _load(self, settings: Mapping[str, Any]) -> Any:
        cache = {"cache": str(self._root), "cache_size": "1GB"}
        return load({"domain": DOMAIN, **cache, **settings}, self._environ)

    async def _run(self, *_: Any) -> Any:
        raise AssertionError("no account has a helper")

    def ask(self, method: str, host: str, path: str, *headers: str) -> Answer:
        """Return the answer to a request, for which threads may be needed."""
        connection = self.connect().ask(method, host, path, *headers)
        self._run_until(lambda: bool(connection.answers) and connection.answer.whole)
        self.settle()
        return connection.answer

    def settle(self) -> None:
        """Let threads end what goes on behind an answer; a barrier of all of them shows that none is busy."""
        for _ in range(_TURNS):
            barrier = Barrier(THREADS)
            self._wait(gather(self._pass(barrier) for _ in range(THREADS)))

    async def _pass(self, barrier: Barrier) -> int:
        return await self.cache.in_thread(barrier.wait)

    def close(self) -> None:
        """Stop the threads."""
        self._wait(self._stop())

    async def _stop(self) -> None:
        await self.cache.service.stopService()

    def _wait(self, work: Coroutine[Any, Any, object]) -> None:
        ended: list[object] = []
        Deferred.fromCoroutine(work).addBoth(ended.append)
        self._run_until(lambda: bool(ended))

    def _run_until(self, is_over: Callable[[], bool]) -> None:
        self.world.agent.flush()
        while not is_over():
            self.threads.run_next()
            self.world.agent.flush()
