"""Stores that fail on command or are slow, and count the contents that are open."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import implementer

from dockmirror.interfaces import ContentKind, IBody, IBucketBlob, IStoredContent
from dockmirror.oci.digest import Descriptor, Digest
from dockmirror.oci.errors import Unavailable
from dockmirror.oci.header_fields import ContentRange
from dockmirror.oci.request import Repository
from dockmirror.pullthrough.authorization import REREAD_AFTER
from dockmirror.store.local_store import LocalContentStore

from ..answering import Pieces
from ..store.memory import MemoryDocuments

_READS = ("open", "holds", "peek", "get", "read")


class Faults:
    """The faults of a disk.

    :ivar reading: reads fail.
    :ivar writing: writes fail.
    :ivar broken: contents break off while they are read.
    :ivar stalled: writes wait until ``go_on``.
    :ivar opened: the number of contents that were opened and neither read nor closed.
    """

    def __init__(self) -> None:
        self.reading = False
        self.writing = False
        self.stalled = False
        self.broken = False
        self.opened = 0
        self.waiting: list[Deferred[None]] = []

    def go_on(self) -> None:
        """Let the writes end, except those that were cancelled."""
        self.stalled = False
        for each in self.waiting:
            if not each.called:
                each.callback(None)


@implementer(IStoredContent)
class _Opened:
    def __init__(self, opened: IStoredContent, faults: Faults) -> None:
        self.size = opened.size
        self._opened = opened
        self._faults = faults
        faults.opened += 1

    def body(self, descriptor: Descriptor, segments: Sequence[bytes | ContentRange]) -> IBody:
        self._faults.opened -= 1
        content = self._opened.body(descriptor, segments)
        return Pieces([b"{"], descriptor, Unavailable()) if self._faults.broken else content

    def close(self) -> None:
        self._faults.opened -= 1
        self._opened.close()


class _Faulty:
    def __init__(self, store: object, faults: Faults) -> None:
        self._store = store
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any) -> Any:
            if name in _READS and self._faults.reading:
                raise OSError("the disk gives nothing")
            if name not in _READS and self._faults.stalled:
                self._faults.waiting.append(Deferred())
                await self._faults.waiting[-1]
            if name not in _READS and self._faults.writing:
                raise OSError("the disk is full")
            result = await getattr(self._store, name)(*args)
            is_content = IStoredContent.providedBy(result) and not IBucketBlob.providedBy(result)
            return _Opened(result, self._faults) if is_content else result

        return call


def faulty(store: object, faults: Faults) -> Any:
    return _Faulty(store, faults)


class LeavingDocuments(MemoryDocuments):
    """Documents that cannot be read any more after a while."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock, self._until = clock, clock.seconds() + REREAD_AFTER

    async def read(self, name: str) -> bytes | None:
        if self._clock.seconds() >= self._until:
            await Deferred()
        return await super().read(name)


class SlowContents(LocalContentStore):
    """Contents on a clock that take so long to be opened that what is remembered is read again."""

    async def open(self, repository: Repository, digest: Digest, kind: ContentKind) -> IStoredContent | None:
        opened = await super().open(repository, digest, kind)
        cast("Clock", self._clock).advance(REREAD_AFTER)
        return opened
