"""Documents on this machine's disk, and in a bucket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from ...concurrency.single_flight import SingleFlight
from ...concurrency.ttl_cache import TTLCache
from ...interfaces import IDocumentStore
from ..write_behind import PendingDocument
from .tiered_contents import Owe

ABSENT = 60.0
"""Seconds for which it is believed that the bucket has no such document."""
REFRESHED = 600.0
"""Seconds after which it is seen what other mirrors have written; whoever reads does not wait for it."""
_MOST = 100_000


@implementer(IDocumentStore)
class TieredDocumentStore:
    """What this mirror has written itself counts, until the bucket has it; then what was written last."""

    def __init__(
        self,
        near: IDocumentStore,
        far: IDocumentStore,
        owe: Owe,
        is_owed: Callable[[PendingDocument], Awaitable[bool]],
        clock: IReactorTime,
    ) -> None:
        self._near = near
        self._far = far
        self._owe = owe
        self._is_owed = is_owed
        self._asked: TTLCache[str, bool] = TTLCache(clock, _MOST)
        self._look_ups: SingleFlight[str, bytes | None] = SingleFlight()

    async def read(self, name: str) -> bytes | None:
        """See ``IDocumentStore``."""
        asked = self._asked.get(name)  # before the disk is read, which has what came of it then
        near = await self._near.read(name)
        if asked:
            return near
        looking = Deferred.fromCoroutine(self._look_ups.get(name, lambda: self._latest(name)))
        if near is None:
            return await looking
        looking.addErrback(lambda _: None)
        return near

    async def write(self, name: str, data: bytes) -> None:
        """See ``IDocumentStore``.

        It is owed before, so that nobody brings the bucket's in its place, and after, for it may have been
        given as it was.
        """
        self._asked.put(name, True, REFRESHED)
        await self._owe(PendingDocument(name))
        await self._near.write(name, data)
        await self._owe(PendingDocument(name))

    async def _latest(self, name: str) -> bytes | None:
        """Return what is far, after writing it here, unless what is here is owed to the bucket."""
        if self._asked.get(name):
            return await self._near.read(name)
        try:
            far = await self._far.read(name)
        except OSError:  # of which the bucket tells
            return await self._near.read(name)
        if far is not None and not await self._is_owed(PendingDocument(name)):
            await self._near.write(name, far)
        near = await self._near.read(name)
        self._asked.put(name, True, ABSENT if near is None else REFRESHED)
        return far if near is None else near
