"""Tags on a disk."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from ..concurrency.ttl_cache import TTLCache
from ..interfaces import ITagStore, TagEntry
from ..oci.digest import Digest
from ..oci.reference import Repository, Tag
from . import layout, links
from .threads import RunInThread

READ_AGAIN = 10.0
"""Seconds after which the disk is asked again, whatever is known."""
_MOST = 10_000

_log = Logger()


@implementer(ITagStore)
class LocalTagStore:
    """Tags as links, each confirmed when it was last modified.

    A tag that everybody asks for is not read by a thread each time: whether a file has changed that was
    read seconds ago is known without the disk, and seen whoever has changed it.
    """

    def __init__(self, root: Path, clock: IReactorTime, in_thread: RunInThread) -> None:
        self._root = root
        self._clock = clock
        self._in_thread = in_thread
        self._read: TTLCache[tuple[Repository, Tag], links.StoredLink] = TTLCache(clock, _MOST)

    async def get(self, repository: Repository, tag: Tag) -> TagEntry | None:
        """See ``ITagStore``."""
        known = self._read.get((repository, tag))
        if known is not None and known.is_current():
            return known.tagged
        link = await self._in_thread(partial(links.find_link, self._root / layout.current(repository, tag)))
        if link is None:
            self._read.drop((repository, tag))
            return None
        self._read.put((repository, tag), link, READ_AGAIN)
        return link.tagged

    async def put(self, repository: Repository, tag: Tag, digest: Digest) -> None:
        """See ``ITagStore``; where the disk takes no link the tag names what it named before."""
        await self.note(repository, tag, TagEntry(digest, self._clock.seconds()))

    async def note(self, repository: Repository, tag: Tag, tagged: TagEntry) -> None:
        """Notes what the tag was confirmed to name, and when; in the same way."""
        putting = self._in_thread(partial(self._put, repository, tag, tagged.digest, tagged.confirmed))
        try:
            await putting
        except OSError as error:
            _log.error(
                "{repository}:{tag} cannot be noted: {error}", repository=repository, tag=tag, error=error
            )

    async def forget(self, repository: Repository, tag: Tag) -> None:
        """See ``ITagStore``."""
        directory = self._root / layout.tag(repository, tag)
        await self._in_thread(partial(links.forget_tag, directory, self._root))

    async def forget_named(self, repository: Repository, digest: Digest) -> None:
        """See ``ITagStore``."""
        await self._in_thread(
            partial(links.forget_named, self._root / layout.tags(repository), digest, self._root)
        )

    def _put(self, repository: Repository, tag: Tag, digest: Digest, now: float) -> None:
        links.write_link(self._root / layout.indexed(repository, tag, digest), digest, self._root, now)
        links.write_link(self._root / layout.current(repository, tag), digest, self._root, now)
