"""What is done with a blob that has arrived."""

from __future__ import annotations

from contextlib import suppress

from twisted.logger import Logger

from ...interfaces import Kind
from ...oci.digest import Digest
from ...oci.reference import Repository
from .means import Means
from .partial import Partial

_log = Logger()


class Finishing:
    """Makes a verified file the finished blob, and says which repositories have it."""

    def __init__(self, digest: Digest, means: Means) -> None:
        self._digest = digest
        self._means = means
        self._linked: set[Repository] = set()

    async def keep(self, partial: Partial) -> bool:
        """Whether it has its name; else it may still be read as long as it is open.

        :raises OSError: when the disk has lost bytes: then nothing more may be read.
        """
        with suppress(OSError):
            partial.tell_verified(partial.length())
        await self._means.in_thread(partial.sync)
        try:
            await self._means.in_thread(partial.keep)
        except OSError as error:
            self._means.trouble.note(error)
            return False
        self._means.trouble.end()
        return True

    async def link(self, repositories: set[Repository]) -> None:
        """Links them, each once, and those that are added meanwhile."""
        while unlinked := repositories - self._linked:
            self._linked |= unlinked
            for repository in unlinked:
                await self._link(repository)

    async def _link(self, repository: Repository) -> None:
        try:
            await self._means.contents.link(repository, self._digest, Kind.BLOB)
        except OSError as error:
            _log.error("{repository} is not linked: {error}", repository=repository.name, error=str(error))
