"""Contents in a bucket."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from ...concurrency.single_flight import SingleFlight
from ...concurrency.ttl_cache import TTLCache
from ...interfaces import ContentKind, IContentStore, IDocumentStore, IStoredContent, ITagStore, TagEntry
from ...oci.digest import Digest
from ...oci.errors import DigestInvalid
from ...oci.reference import Repository, Tag
from .. import layout
from ..open_content import StoredBytes
from .blocking_bucket import ObjectReader, StoredObject
from .bucket import Bucket
from .object_body import OpenObject

_LARGEST_MANIFEST = 4 * 1024 * 1024
"""Up to how many bytes a manifest is read and verified whenever it is opened."""
_LINKED = 24 * 3600.0
"""Seconds for which it is remembered that a repository has a content."""
_THERE = 600.0
"""Seconds for which it is remembered that a content is there, and how large it is."""
ABSENT_TTL = 10.0
"""Seconds for which it is remembered that a content, or a link to it, is not there."""
_MOST = 100_000

_log = Logger()

_Link = tuple[Repository, Digest, ContentKind]


@frozen
class _Object:
    """A content that is there: its size, and for which repository it was put as what."""

    size: int
    put_for: Mapping[str, str]


@implementer(IContentStore)
class BucketContentStore:
    """Contents as distribution's s3 driver keeps them, in a bucket that any number of mirrors share.

    A blob is looked up by HEAD and read only when its bytes are wanted; a manifest is looked up by reading
    it.  For which repository a content was put its object says itself, in its metadata; only what others
    have of it, links say.  Whoever looks up the same at once is given one answer, which holds for a while.

    :param lifetime: of the addresses at which clients get blobs by themselves; they are sent to none where
        it is None.
    """

    def __init__(self, bucket: Bucket, clock: IReactorTime, lifetime: float | None = None) -> None:
        self._bucket = bucket
        self._clock = clock
        self._lifetime = lifetime
        self._there: TTLCache[Digest, _Object] = TTLCache(clock, _MOST)
        self._absent: TTLCache[Digest, bool] = TTLCache(clock, _MOST)
        self._linked: TTLCache[_Link, bool] = TTLCache(clock, _MOST)
        self._look_ups: SingleFlight[Digest, _Object | None] = SingleFlight()
        self._link_look_ups: SingleFlight[_Link, bool] = SingleFlight()
        self._links: SingleFlight[_Link, None] = SingleFlight()

    async def open(self, repository: Repository, digest: Digest, kind: ContentKind) -> IStoredContent | None:
        """See ``IContentStore``; what is opened holds nothing, and may be used any number of times."""
        if kind is ContentKind.MANIFEST:
            return await self._open_manifest(repository, digest)
        there = await self._look_up(digest)
        if there is None or not await self._has(repository, digest, kind, there):
            return None
        return self._opened(digest, there)

    def is_known_link(self, repository: Repository, digest: Digest, kind: ContentKind) -> bool:
        """See ``LinkKnowledge``."""
        return bool(self._linked.get((repository, digest, kind)))

    async def holds(self, digest: Digest) -> bool:
        """See ``IContentStore``; it may have gone some minutes ago."""
        return await self._look_up(digest) is not None

    async def exists(self, digest: Digest) -> bool:
        """Whether it is there now."""
        return self._note(digest, await self._bucket.get(layout.data(digest), bare=True)) is not None

    async def peek(self, digest: Digest) -> IStoredContent | None:
        """See ``IContentStore``."""
        there = await self._look_up(digest)
        return None if there is None else self._opened(digest, there)

    async def link(self, repository: Repository, digest: Digest, kind: ContentKind) -> bool:
        """See ``IContentStore``."""
        there = await self._look_up(digest)
        if there is None:
            return False
        key = repository, digest, kind
        if not self._linked.get(key) and there.put_for.get(kind.value) != repository.name:
            await self._links.get(key, lambda: self.write_link(*key))
        return True

    async def write_link(self, repository: Repository, digest: Digest, kind: ContentKind) -> None:
        """Says that the repository has a content that is known to be there."""
        await self._bucket.put(layout.link(repository, digest, kind), str(digest).encode())
        self._linked.put((repository, digest, kind), True, _LINKED)
        self._absent.drop(digest)

    async def add(self, repository: Repository, digest: Digest, kind: ContentKind, data: bytes) -> None:
        """See ``IContentStore``."""
        await self._bucket.put_new(layout.data(digest), data, link_metadata(repository, kind))
        await self.write_link(repository, digest, kind)

    async def unlink(self, repository: Repository, digest: Digest, kind: ContentKind) -> None:
        """See ``IContentStore``.

        The object's own metadata stays what it was: what was put for this repository can still be opened.
        Its deletion is noted in documents, which are never deleted from a bucket.
        """
        self._linked.drop((repository, digest, kind))
        await self._bucket.delete([str(layout.link(repository, digest, kind))])

    async def open_range(self, digest: Digest, first: int, end: int) -> ObjectReader:
        """See ``Origin``."""
        found = await self._bucket.get(layout.data(digest), (first, end))
        if found is None:
            self._note(digest, found)
            raise FileNotFoundError(f"{digest} is not in the bucket any more")
        return found.body

    async def report_corrupt(self, digest: Digest) -> None:
        """See ``Origin``; it is deleted."""
        _log.error("{digest} in the bucket was not the content of its name, and is deleted", digest=digest)
        self._there.drop(digest)
        try:
            await self._bucket.delete([str(layout.data(digest))])
        except OSError as error:
            _log.error("{digest} cannot be deleted: {error}", digest=digest, error=str(error))

    async def presigned_url(self, digest: Digest) -> str | None:
        """See ``IBucketBlob``."""
        if self._lifetime is None:
            return None
        return await self._bucket.sign_url(layout.data(digest), self._lifetime)

    def _opened(self, digest: Digest, there: _Object) -> IStoredContent | None:
        if not there.size:
            return StoredBytes(b"") if digest.matches(b"") else None
        return OpenObject(digest, there.size, self, self._clock)

    async def _open_manifest(self, repository: Repository, digest: Digest) -> IStoredContent | None:
        if self._absent.get(digest) or self._linked.get((repository, digest, ContentKind.MANIFEST)) is False:
            return None
        found = await self._bucket.get(layout.data(digest))
        there = self._note(digest, found)
        if found is None or there is None:
            return None
        try:
            if not await self._has(repository, digest, ContentKind.MANIFEST, there):
                return None
            if there.size > _LARGEST_MANIFEST:
                return OpenObject(digest, there.size, self, self._clock)
            data = await found.body.read_all() if there.size else b""
        finally:
            found.body.close()
        if digest.matches(data):
            return StoredBytes(data)
        await self.report_corrupt(digest)
        return None

    async def _look_up(self, digest: Digest) -> _Object | None:
        if self._absent.get(digest):
            return None
        return self._there.get(digest) or await self._look_ups.get(digest, lambda: self._ask(digest))

    async def _ask(self, digest: Digest) -> _Object | None:
        return self._note(digest, await self._bucket.get(layout.data(digest), bare=True))

    def _note(self, digest: Digest, found: StoredObject | None) -> _Object | None:
        """Remembers what a look-up has found."""
        if found is None:
            self._there.drop(digest)
            self._absent.put(digest, True, ABSENT_TTL)
            return None
        there = _Object(found.size, found.metadata)
        self._absent.drop(digest)
        self._there.put(digest, there, _THERE)
        return there

    async def _has(self, repository: Repository, digest: Digest, kind: ContentKind, there: _Object) -> bool:
        key = repository, digest, kind
        known = self._linked.get(key)
        if known is None and there.put_for.get(kind.value) == repository.name:
            known = True
            self._linked.put(key, True, _LINKED)
        return await self._link_look_ups.get(key, lambda: self._ask_for_link(key)) if known is None else known

    async def _ask_for_link(self, key: _Link) -> bool:
        link = await self._bucket.read(layout.link(*key))
        known = link is not None and link[0] == str(key[1]).encode()
        known = known or bool(self._linked.get(key))  # it may have been written meanwhile
        self._linked.put(key, known, _LINKED if known else ABSENT_TTL)
        return known


def link_metadata(repository: Repository, kind: ContentKind) -> dict[str, str]:
    """Metadata of a content that is put for a repository."""
    return {kind.value: repository.name}


_CONFIRMED = "confirmed"


@implementer(ITagStore)
class BucketTagStore:
    """Tags as links; when one was confirmed stands in its object's metadata."""

    def __init__(self, bucket: Bucket, clock: IReactorTime) -> None:
        self._bucket = bucket
        self._clock = clock

    async def get(self, repository: Repository, tag: Tag) -> TagEntry | None:
        """See ``ITagStore``."""
        read = await self._bucket.read(layout.tag_link(repository, tag))
        if read is None:
            return None
        try:
            return TagEntry(Digest.parse(read[0].decode("ascii")), _confirmed(read[1]))
        except (UnicodeDecodeError, DigestInvalid):
            return None

    async def put(self, repository: Repository, tag: Tag, digest: Digest) -> None:
        """See ``ITagStore``."""
        await self.record(repository, tag, TagEntry(digest, self._clock.seconds()))

    async def record(self, repository: Repository, tag: Tag, tagged: TagEntry) -> None:
        """Notes what the tag was confirmed to name."""
        link, metadata = str(tagged.digest).encode(), {_CONFIRMED: repr(tagged.confirmed)}
        await self._bucket.put(layout.tag_history(repository, tag, tagged.digest), link)
        await self._bucket.put(layout.tag_link(repository, tag), link, metadata)

    async def forget(self, repository: Repository, tag: Tag) -> None:
        """See ``ITagStore``."""
        listed = await self._bucket.list(layout.tag_directory(repository, tag))
        await self._bucket.delete([str(layout.tag_link(repository, tag)), *(each.key for each in listed)])

    async def forget_named(self, repository: Repository, digest: Digest) -> None:
        """See ``ITagStore``."""
        directory, entry = (
            layout.tags_directory(repository),
            str(layout.TAG_HISTORY / layout.link_name(digest)),
        )
        for each in await self._bucket.list(directory):
            name, _, rest = each.key.removeprefix(f"{directory}/").partition("/")
            if rest == entry:
                named = await self.get(repository, Tag(name))
                if named is not None and named.digest == digest:
                    await self.forget(repository, Tag(name))


def _confirmed(found: StoredObject) -> float:
    """Where another than a mirror wrote the link, when it was modified."""
    with suppress(ValueError):
        return float(found.metadata.get(_CONFIRMED, ""))
    return found.modified


@implementer(IDocumentStore)
class BucketDocumentStore:
    """Documents as objects."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    async def read(self, name: str) -> bytes | None:
        """See ``IDocumentStore``."""
        read = await self._bucket.read(layout.document(name))
        return read[0] if read else None

    async def write(self, name: str, data: bytes) -> None:
        """See ``IDocumentStore``."""
        await self._bucket.put(layout.document(name), data)
