"""Small contents in memory, in front of where they are kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from ..content.held import collect
from ..interfaces import IContents, IOpened, Kind
from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.errors import RegistryError
from ..oci.ranges import ContentRange
from ..oci.reference import Repository
from .opened import OpenedBytes

ASKED_AGAIN = 60.0
"""Seconds after which what is remembered is asked for again."""

_LARGEST = 128 * 1024
_OVERHEAD = 1024

_Key = tuple[Repository, Digest, Kind]


@frozen
class _Entry:
    data: bytes
    since: float


@implementer(IContents)
class Remembered:
    """Remembers what of small contents was opened of late: the bytes, and that the repository has them.

    Bytes that have a digest are right for ever, so nobody is given wrong ones although the file is gone
    meanwhile.  What may be out of date is that the repository has them: what this process evicts is
    forgotten (``forget``), what another one does is noticed within a minute, when the contents are asked
    again; that also notes their use, so that what is served from here is not the least recently used
    there.  That something is not there is never remembered: what is linked is seen at once.
    """

    def __init__(self, contents: IContents, clock: IReactorTime, limit: int) -> None:
        self._contents = contents
        self._clock = clock
        self._limit = limit
        self._size = 0
        self._entries: OrderedDict[_Key, _Entry] = OrderedDict()

    async def open(self, repository: Repository, digest: Digest, kind: Kind) -> IOpened | None:
        """See ``IContents``."""
        key = repository, digest, kind
        entry = self._entries.get(key)
        if entry is not None and 0 <= self._clock.seconds() - entry.since < ASKED_AGAIN:
            self._entries.move_to_end(key)
            return OpenedBytes(entry.data)
        self._drop(key)
        opened = await self._contents.open(repository, digest, kind)
        if opened is None or opened.size > _LARGEST:
            return opened
        data = await _all(opened)
        if data is None:
            return None
        self._remember(key, data)
        return OpenedBytes(data)

    async def holds(self, digest: Digest) -> bool:
        """See ``IContents``."""
        return await self._contents.holds(digest)

    async def link(self, repository: Repository, digest: Digest, kind: Kind) -> bool:
        """See ``IContents``."""
        linked = await self._contents.link(repository, digest, kind)
        if not linked:
            self._drop((repository, digest, kind))
        return linked

    async def add(self, repository: Repository, digest: Digest, kind: Kind, data: bytes) -> None:
        """See ``IContents``."""
        await self._contents.add(repository, digest, kind, data)

    def forget(self, digests: Iterable[Digest]) -> None:
        """These contents are held no more."""
        gone = set(digests)
        for key in [key for key in self._entries if key[1] in gone]:
            self._drop(key)

    def _remember(self, key: _Key, data: bytes) -> None:
        self._drop(key)
        self._entries[key] = _Entry(data, self._clock.seconds())
        self._size += _cost(data)
        while self._size > self._limit:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: _Key) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._size -= _cost(entry.data)


def _cost(data: bytes) -> int:
    return len(data) + _OVERHEAD


async def _all(opened: IOpened) -> bytes | None:
    """The whole content; None where it cannot be completed."""
    whole = [ContentRange(0, opened.size - 1, opened.size)] if opened.size else []
    try:
        return await collect(opened.content(Descriptor(size=opened.size), whole), opened.size)
    except RegistryError:
        return None
