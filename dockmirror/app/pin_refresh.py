"""Pinned images kept up to date, by one of the mirrors that share a store."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..concurrency.periodic_task import PeriodicTask
from ..concurrency.ttl_cache import TTLCache
from ..interfaces import IRegistry
from ..oci.errors import RegistryError
from ..pull import Pull, PulledImage, Wanted
from ..store import pins
from ..store.pins import Pin
from ..store.threads import RunInThread

PERIOD = 6 * 3600.0
"""Seconds after which a pinned image is asked for again."""
LOOK = 10.0
"""Seconds between two looks at which are due: so soon is fetched what is pinned now."""
PAUSE = 900.0
"""Seconds for which an image is left alone that could not be refreshed."""
_JOBS = 2
_MOST = 10_000
_log = Logger()


class PinRefresh(PeriodicTask):
    """Pulls what is pinned through the mirror's own registries, of which each is asked as it always is.

    It begins after a while: nothing is fetched before anybody is served.

    :param registry: what lies on the mirror's own host just now.
    """

    def __init__(
        self, root: Path, clock: IReactorTime, in_thread: RunInThread, registry: Callable[[], IRegistry]
    ) -> None:
        super().__init__(self._look, LOOK, clock, "pins cannot be refreshed")
        self._root = root
        self._clock = clock
        self._in_thread = in_thread
        self._registry = registry
        self._failed: TTLCache[Pin, bool] = TTLCache(clock, _MOST)

    async def _look(self) -> None:
        try:
            await self.look()
        except OSError as error:
            _log.warn("pins cannot be refreshed: {error}", error=error)

    async def look(self) -> None:
        """Refreshes what is due, unless another process does."""
        if not await self._due():
            return
        turn = await self._in_thread(partial(pins.lock_refresh, self._root))
        if turn is None:
            return
        try:
            for pin in await self._due():
                await self._refresh(pin)
        finally:
            os.close(turn)

    async def _due(self) -> list[Pin]:
        now = self._clock.seconds()
        pinned = await self._in_thread(lambda: list(pins.pins(self._root)))
        return [pin for pin, when in pinned if not 0 <= now - when < PERIOD and not self._failed.get(pin)]

    async def _refresh(self, pin: Pin) -> None:
        wanted, pulled = Wanted(pin.repository, pin.reference, pin.platforms), PulledImage()
        try:
            await Pull(self._registry(), _JOBS).image(wanted, pulled)
        except (RegistryError, OSError) as error:
            _log.warn("the pinned {image} cannot be refreshed: {error}", image=str(pin), error=str(error))
            self._failed.put(pin, True, PAUSE)
            return
        await self._in_thread(partial(pins.refreshed, self._root, pin, self._clock.seconds()))
        _log.info(
            "the pinned {image} is refreshed: {fetched} blobs of {size} bytes fetched",
            image=str(pin), fetched=pulled.fetched, size=pulled.bytes,
        )  # fmt: skip
