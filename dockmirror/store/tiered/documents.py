"""Documents on this machine's disk, and in a bucket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from ...interfaces import IDocuments
from ...work.notes import Notes
from ..owed import OwedDocument
from .contents import Owe

ABSENT = 60.0
"""Seconds for which it is believed that the bucket has no such document."""
REFRESHED = 600.0
"""Seconds after which it is seen what other mirrors have written; whoever reads does not wait for it."""
_MOST = 100_000


@implementer(IDocuments)
class TieredDocuments:
    """What this mirror has written itself counts, until the bucket has it; then what was written last."""

    def __init__(
        self,
        near: IDocuments,
        far: IDocuments,
        owe: Owe,
        is_owed: Callable[[OwedDocument], Awaitable[bool]],
        clock: IReactorTime,
    ) -> None:
        self._near = near
        self._far = far
        self._owe = owe
        self._is_owed = is_owed
        self._asked: Notes[str, bool] = Notes(clock, _MOST)

    async def read(self, name: str) -> bytes | None:
        """See ``IDocuments``."""
        near = await self._near.read(name)
        if self._asked.get(name):
            return near
        self._asked.put(name, True, ABSENT if near is None else REFRESHED)
        if near is None:
            return await self._brought(name)
        Deferred.fromCoroutine(self._brought(name)).addErrback(lambda _: None)
        return near

    async def write(self, name: str, data: bytes) -> None:
        """See ``IDocuments``.

        It is owed before, so that nobody brings the bucket's in its place, and after, for it may have been
        given as it was.
        """
        self._asked.put(name, True, REFRESHED)
        await self._owe(OwedDocument(name))
        await self._near.write(name, data)
        await self._owe(OwedDocument(name))

    async def _brought(self, name: str) -> bytes | None:
        try:
            far = await self._far.read(name)
        except OSError:  # of which the bucket tells
            return None
        if far is not None and not await self._is_owed(OwedDocument(name)):
            await self._near.write(name, far)
        return far
