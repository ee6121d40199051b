"""Tags on this machine's disk, and in a bucket."""

from __future__ import annotations

from contextlib import suppress
from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from ...interfaces import ITags, Tagged
from ...oci.digest import Digest
from ...oci.reference import Repository, Tag
from ...work.notes import Notes
from ..owed import OwedTag
from .contents import Owe

ASKED_AGAIN = 60.0
"""Seconds since it was confirmed after which another mirror may know better, and between two questions."""
GIVEN_AGAIN = 3600.0
"""Seconds after which the bucket is told of a confirmation that changes nothing."""
_MOST = 100_000


class NotedTags(Protocol):
    """Tags of which it is known when somebody else has confirmed them."""

    async def note(self, repository: Repository, tag: Tag, tagged: Tagged) -> None:
        """Notes what the tag was confirmed to name, and when."""


@implementer(ITags)
class TieredTags:
    """The one that was confirmed last counts; the bucket is asked only of what was not confirmed lately."""

    def __init__(self, near: ITags, noted: NotedTags, far: ITags, owe: Owe, clock: IReactorTime) -> None:
        self._near = near
        self._noted = noted
        self._far = far
        self._owe = owe
        self._clock = clock
        self._asked: Notes[tuple[Repository, Tag], bool] = Notes(clock, _MOST)
        self._given: Notes[tuple[Repository, Tag], Digest] = Notes(clock, _MOST)

    async def get(self, repository: Repository, tag: Tag) -> Tagged | None:
        """See ``ITags``."""
        near, key = await self._near.get(repository, tag), (repository, tag)
        if near is not None and 0 <= self._clock.seconds() - near.confirmed < ASKED_AGAIN:
            return near
        if self._asked.get(key):
            return near
        self._asked.put(key, True, ASKED_AGAIN)
        try:
            far = await self._far.get(repository, tag)
        except OSError:  # of which the bucket tells
            return near
        if far is None or (near is not None and far.confirmed <= near.confirmed):
            return near
        await self._noted.note(repository, tag, far)
        return far

    async def put(self, repository: Repository, tag: Tag, digest: Digest) -> None:
        """See ``ITags``."""
        await self._near.put(repository, tag, digest)
        if self._given.get((repository, tag)) != digest:
            await self._owe(OwedTag(repository, tag))
            self._given.put((repository, tag), digest, GIVEN_AGAIN)

    async def forget(self, repository: Repository, tag: Tag) -> None:
        """See ``ITags``; where the bucket does not, it will be asked to again when the tag is."""
        self._given.drop((repository, tag))
        await self._near.forget(repository, tag)
        with suppress(OSError):
            await self._far.forget(repository, tag)
