"""Documents on a disk."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from ..interfaces import IDocumentStore
from . import atomic_file, files, layout
from .threads import RunInThread

_log = Logger()


@implementer(IDocumentStore)
class LocalDocumentStore:
    """Documents as files, evicted like contents when they have not been used for long."""

    def __init__(self, root: Path, clock: IReactorTime, in_thread: RunInThread) -> None:
        self._root = root
        self._clock = clock
        self._in_thread = in_thread

    async def read(self, name: str) -> bytes | None:
        """See ``IDocumentStore``."""
        return await self._in_thread(partial(self._read, name, self._clock.seconds()))

    async def write(self, name: str, data: bytes) -> None:
        """See ``IDocumentStore``; where the disk does not take it it is what it was before."""
        path, writing = self._root / layout.document(name), self._root / layout.WRITING
        try:
            await self._in_thread(
                partial(atomic_file.replace_file, path, data, writing, self._clock.seconds())
            )
        except OSError as error:
            _log.error("{name} cannot be written: {error}", name=name, error=error)

    def _read(self, name: str, now: float) -> bytes | None:
        path = self._root / layout.document(name)
        found = atomic_file.read_small_file(path)
        if found is None:
            return None
        files.touch(path, found.modified, now)
        return found.data
