"""Tags on a disk."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from ..interfaces import ITags, Tagged
from ..oci.digest import Digest
from ..oci.reference import Repository, Tag
from . import layout, links
from .threads import InThread

_log = Logger()


@implementer(ITags)
class LocalTags:
    """Tags as links, each confirmed when it was last modified."""

    def __init__(self, root: Path, clock: IReactorTime, in_thread: InThread) -> None:
        self._root = root
        self._clock = clock
        self._in_thread = in_thread

    async def get(self, repository: Repository, tag: Tag) -> Tagged | None:
        """See ``ITags``."""
        return await self._in_thread(partial(links.read, self._root / layout.current(repository, tag)))

    async def put(self, repository: Repository, tag: Tag, digest: Digest) -> None:
        """See ``ITags``; where the disk takes no link the tag names what it named before."""
        putting = self._in_thread(partial(self._put, repository, tag, digest, self._clock.seconds()))
        try:
            await putting
        except OSError as error:
            _log.error(
                "{repository}:{tag} cannot be noted: {error}", repository=repository, tag=tag, error=error
            )

    async def forget(self, repository: Repository, tag: Tag) -> None:
        """See ``ITags``."""
        directory = self._root / layout.tag(repository, tag)
        await self._in_thread(partial(links.forget_tag, directory, self._root))

    def _put(self, repository: Repository, tag: Tag, digest: Digest, now: float) -> None:
        links.write(self._root / layout.indexed(repository, tag, digest), digest, self._root, now)
        links.write(self._root / layout.current(repository, tag), digest, self._root, now)
