"""Contents in a bucket."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from ...interfaces import IContents, IOpened, Kind
from ...oci.digest import Digest
from ...oci.reference import Repository
from ...work.notes import Notes
from .. import layout
from ..opened import OpenedBytes
from .body import Body
from .bucket import Bucket
from .calls import Found
from .opened import OpenedObject

_READ_WHOLE = {Kind.BLOB: 64 * 1024, Kind.MANIFEST: 4 * 1024 * 1024}
"""Up to how many bytes a content is read and verified whenever it is opened."""
_LINKED = 24 * 3600.0
"""Seconds for which it is remembered that a repository has a content."""
_SIZE = 600.0
"""Seconds for which it is remembered how large a content is that was there."""
_MOST = 100_000

_log = Logger()


@implementer(IContents)
class ObjectContents:
    """Contents as distribution's s3 driver keeps them, in a bucket that any number of mirrors share.

    A content is opened by one request: for which repository it was put its object says itself, in its
    metadata; only what others have of it, links say.

    :param lifetime: of the addresses at which clients get contents by themselves; they are sent to none
        where it is None, and what is opened is read along.
    """

    def __init__(self, bucket: Bucket, clock: IReactorTime, lifetime: float | None = None) -> None:
        self._bucket = bucket
        self._clock = clock
        self._lifetime = lifetime
        self._linked: Notes[tuple[Repository, Digest, Kind], bool] = Notes(clock, _MOST)
        self._sizes: Notes[Digest, int] = Notes(clock, _MOST)

    async def open(self, repository: Repository, digest: Digest, kind: Kind) -> IOpened | None:
        """See ``IContents``."""
        size = self._sizes.get(digest)
        if size is not None and self._linked.get((repository, digest, kind)):
            return OpenedObject(digest, size, None, self, self._clock)
        sent_there = self._lifetime is not None and kind is Kind.BLOB
        found = await self._bucket.get(layout.data(digest), bare=sent_there)
        if found is None:
            return None
        if await self._has(repository, digest, kind, found):
            return await self._opened(digest, kind, found, None if sent_there else found.body)
        found.body.close()
        return None

    def knows(self, repository: Repository, digest: Digest, kind: Kind) -> bool:
        """See ``Far``."""
        return bool(self._linked.get((repository, digest, kind)))

    async def holds(self, digest: Digest) -> bool:
        """See ``IContents``."""
        return await self._bucket.get(layout.data(digest), bare=True) is not None

    async def link(self, repository: Repository, digest: Digest, kind: Kind) -> bool:
        """See ``IContents``."""
        if not await self.holds(digest):
            return False
        await self.write_link(repository, digest, kind)
        return True

    async def write_link(self, repository: Repository, digest: Digest, kind: Kind) -> None:
        """Says that the repository has a content that is known to be there."""
        await self._bucket.put(layout.link(repository, digest, kind), str(digest).encode())
        self._linked.put((repository, digest, kind), True, _LINKED)

    async def add(self, repository: Repository, digest: Digest, kind: Kind, data: bytes) -> None:
        """See ``IContents``."""
        await self._bucket.put_new(layout.data(digest), data, named(repository, kind))
        await self.write_link(repository, digest, kind)

    async def part(self, digest: Digest, first: int, end: int) -> Body:
        """See ``Origin``."""
        found = await self._bucket.get(layout.data(digest), (first, end))
        if found is None:
            self._sizes.drop(digest)
            raise FileNotFoundError(f"{digest} is not in the bucket any more")
        return found.body

    async def spoilt(self, digest: Digest) -> None:
        """See ``Origin``; it is deleted."""
        _log.error("{digest} in the bucket was not the content of its name, and is deleted", digest=digest)
        self._sizes.drop(digest)
        try:
            await self._bucket.delete([str(layout.data(digest))])
        except OSError as error:
            _log.error("{digest} cannot be deleted: {error}", digest=digest, error=str(error))

    async def location(self, digest: Digest) -> str | None:
        """See ``IDistant``."""
        if self._lifetime is None:
            return None
        return await self._bucket.link(layout.data(digest), self._lifetime)

    async def _has(self, repository: Repository, digest: Digest, kind: Kind, found: Found) -> bool:
        key = repository, digest, kind
        known = self._linked.get(key) or found.metadata.get(kind.value) == repository.name
        if not known:
            link = await self._bucket.read(layout.link(repository, digest, kind))
            known = link is not None and link[0] == str(digest).encode()
        if known:
            self._linked.put(key, True, _LINKED)
        return known

    async def _opened(self, digest: Digest, kind: Kind, found: Found, body: Body | None) -> IOpened | None:
        if found.size > _READ_WHOLE[kind]:
            self._sizes.put(digest, found.size, _SIZE)
            return OpenedObject(digest, found.size, body, self, self._clock)
        if body is None:
            body = await self.part(digest, 0, found.size) if found.size else found.body
        data = await body.whole() if found.size else b""
        if digest.matches(data):
            return OpenedBytes(data)
        await self.spoilt(digest)
        return None


def named(repository: Repository, kind: Kind) -> dict[str, str]:
    """Metadata of a content that is put for a repository."""
    return {kind.value: repository.name}
