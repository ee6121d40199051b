"""Tags on this machine's disk, and in a bucket."""

from __future__ import annotations

from contextlib import suppress
from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from ...concurrency.single_flight import SingleFlight
from ...concurrency.ttl_cache import TTLCache
from ...interfaces import ITagStore, TagEntry
from ...oci.digest import Digest
from ...oci.reference import Repository, Tag
from ..write_behind import PendingTag
from .tiered_contents import Owe

ASKED_AGAIN = 60.0
"""Seconds since it was confirmed after which another mirror may know better, and between two questions."""
GIVEN_AGAIN = 3600.0
"""Seconds after which the bucket is told of a confirmation that changes nothing."""
_MOST = 100_000


class TagConfirmations(Protocol):
    """Tags of which it is known when somebody else has confirmed them."""

    async def note(self, repository: Repository, tag: Tag, tagged: TagEntry) -> None:
        """Notes what the tag was confirmed to name, and when."""


@implementer(ITagStore)
class TieredTagStore:
    """The one that was confirmed last counts; the bucket is asked only of what was not confirmed lately."""

    def __init__(
        self, near: ITagStore, noted: TagConfirmations, far: ITagStore, owe: Owe, clock: IReactorTime
    ) -> None:
        self._near = near
        self._noted = noted
        self._far = far
        self._owe = owe
        self._clock = clock
        self._asked: TTLCache[tuple[Repository, Tag], bool] = TTLCache(clock, _MOST)
        self._look_ups: SingleFlight[tuple[Repository, Tag], TagEntry | None] = SingleFlight()
        self._given: TTLCache[tuple[Repository, Tag], Digest] = TTLCache(clock, _MOST)

    async def get(self, repository: Repository, tag: Tag) -> TagEntry | None:
        """See ``ITagStore``."""
        key = repository, tag
        asked = self._asked.get(key)  # before the disk is read, which has what came of it then
        near = await self._near.get(repository, tag)
        if asked or (near is not None and 0 <= self._clock.seconds() - near.confirmed < ASKED_AGAIN):
            return near
        return await self._look_ups.get(key, lambda: self._latest(repository, tag))

    async def put(self, repository: Repository, tag: Tag, digest: Digest) -> None:
        """See ``ITagStore``."""
        await self._near.put(repository, tag, digest)
        if self._given.get((repository, tag)) != digest:
            await self._owe(PendingTag(repository, tag))
            self._given.put((repository, tag), digest, GIVEN_AGAIN)

    async def forget(self, repository: Repository, tag: Tag) -> None:
        """See ``ITagStore``; where the bucket does not, it will be asked to again when the tag is."""
        self._given.drop((repository, tag))
        await self._near.forget(repository, tag)
        with suppress(OSError):
            await self._far.forget(repository, tag)

    async def forget_named(self, repository: Repository, digest: Digest) -> None:
        """See ``ITagStore`` and ``forget``."""
        await self._near.forget_named(repository, digest)
        with suppress(OSError):
            await self._far.forget_named(repository, digest)

    async def _latest(self, repository: Repository, tag: Tag) -> TagEntry | None:
        """Return what was confirmed last, here or far, after noting it here."""
        if self._asked.get((repository, tag)):
            return await self._near.get(repository, tag)
        try:
            far = await self._far.get(repository, tag)
        except OSError:  # of which the bucket tells
            return await self._near.get(repository, tag)
        near = await self._near.get(repository, tag)
        if far is not None and (near is None or near.confirmed < far.confirmed):
            await self._noted.note(repository, tag, far)
            near = far
        self._asked.put((repository, tag), True, ASKED_AGAIN)
        return near
