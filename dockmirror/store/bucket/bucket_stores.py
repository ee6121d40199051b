"""The store in a bucket: contents, tags and documents; and copies of the bucket near clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from attrs import frozen
from twisted.application.service import MultiService, Service
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from ...concurrency.coroutines import SingleFlight, TTLCache, run_in_pool
from ...interfaces import ContentKind, IContentStore, IDocumentStore, IStoredContent, ITagStore, TagEntry
from ...oci.digest import Digest
from ...oci.errors import DigestInvalid
from ...oci.request import Repository, Tag
from ...system.networks import Address, Region, find_region
from .. import layout
from ..file_body import StoredBytes
from .blocking_bucket import BucketAddress, ObjectReader, StoredObject
from .bucket import Bucket, BucketThreadPool
from .object_body import OpenObject

_MAX_INLINE_MANIFEST = 4 * 1024 * 1024
"""Manifests up to this size are read and verified whenever they are opened."""
_LINK_TTL = 24 * 3600.0
"""Seconds for which it is cached that a repository has a content."""
_PRESENT_TTL = 600.0
"""Seconds for which it is cached that a content exists, and its size."""
ABSENT_TTL = 10.0
"""Seconds for which it is cached that a content, or a link to it, is missing."""
_MAX_CACHED = 100_000
SIGNED_URL_LIFETIME = 60.0
"""Seconds for which a presigned URL is valid: a recall cannot take it back."""
_LinkKey = tuple[Repository, Digest, ContentKind]
_CONFIRMED = "confirmed"
_log = Logger()


@frozen
class _Object:
    """A content's size, and the repository it was put for, by kind."""

    size: int
    put_for: Mapping[str, str]


@implementer(IContentStore)
class BucketContentStore:
    """Contents laid out like those of distribution's s3 driver, in a bucket that any number of mirrors share.

    A blob is looked up with HEAD and read only when its bytes are wanted; a manifest is looked up by reading
    it. An object's metadata names the repository it was put for; for other repositories there are links.
    Concurrent look-ups of the same content share one request, whose result is cached for a while.

    :param lifetime: of presigned URLs, in seconds; None if clients are not redirected to the bucket.
    """

    def __init__(self, bucket: Bucket, clock: IReactorTime, lifetime: float | None = None) -> None:
        self.bucket = bucket
        self._clock = clock
        self._lifetime = lifetime
        self._present: TTLCache[Digest, _Object] = TTLCache(clock, _MAX_CACHED)
        self._absent: TTLCache[Digest, bool] = TTLCache(clock, _MAX_CACHED)
        self._linked: TTLCache[_LinkKey, bool] = TTLCache(clock, _MAX_CACHED)
        self._look_ups: SingleFlight[Digest, _Object | None] = SingleFlight()
        self._link_look_ups: SingleFlight[_LinkKey, bool] = SingleFlight()
        self._links: SingleFlight[_LinkKey, None] = SingleFlight()

    async def open(self, repository: Repository, digest: Digest, kind: ContentKind) -> IStoredContent | None:
        """Open the content; the result holds no resources and may be used any number of times."""
        if kind is ContentKind.MANIFEST:
            return await self._open_manifest(repository, digest)
        found = await self._look_up(digest)
        if found is None or not await self._is_linked(repository, digest, kind, found):
            return None
        return await self._open_object(digest, found)

    def is_known_link(self, repository: Repository, digest: Digest, kind: ContentKind) -> bool:
        """Report whether the link is cached."""
        return bool(self._linked.get((repository, digest, kind)))

    async def holds(self, digest: Digest) -> bool:
        """Report whether the content exists; the answer may be some minutes old."""
        return await self._look_up(digest) is not None

    async def exists(self, digest: Digest) -> bool:
        """Ask the bucket whether the content exists."""
        return (
            self._cache_result(digest, await self.bucket.get(layout.data(digest), metadata_only=True))
            is not None
        )

    async def peek(self, digest: Digest) -> IStoredContent | None:
        """See ``IContentStore``."""
        found = await self._look_up(digest)
        return None if found is None else await self._open_object(digest, found)

    async def link(self, repository: Repository, digest: Digest, kind: ContentKind) -> bool:
        found = await self._look_up(digest)
        if found is None:
            return False
        key = repository, digest, kind
        if not self._linked.get(key) and found.put_for.get(kind.value) != repository.name:
            await self._links.get(key, lambda: self.write_link(*key))
        return True

    async def write_link(self, repository: Repository, digest: Digest, kind: ContentKind) -> None:
        """Link a content that is known to exist."""
        await self.bucket.put(layout.link(repository, digest, kind), str(digest).encode())
        self._linked.put((repository, digest, kind), True, _LINK_TTL)
        self._absent.drop(digest)

    async def add(self, repository: Repository, digest: Digest, kind: ContentKind, data: bytes) -> bool:
        await self.bucket.put_new(layout.data(digest), data, link_metadata(repository, kind))
        await self.write_link(repository, digest, kind)
        return True

    async def unlink(self, repository: Repository, digest: Digest, kind: ContentKind) -> None:
        """Remove the link.

        The object's metadata stays: a content that was put for this repository can still be opened. Its
        deletion is recorded in a document, and documents are never deleted from a bucket.
        """
        self._linked.drop((repository, digest, kind))
        await self.bucket.delete([str(layout.link(repository, digest, kind))])

    async def open_range(self, digest: Digest, first: int, end: int) -> ObjectReader:
        """Implement ``ObjectSource.open_range``."""
        if not self._absent.get(digest):
            found = await self.bucket.get(layout.data(digest), (first, end))
            if found is not None:
                return found.body
            self._cache_result(digest, found)
        raise FileNotFoundError(f"{digest} is not in the bucket any more")

    async def report_corrupt(self, digest: Digest) -> None:
        """Delete the corrupt object; for some seconds it is not read again, even if that fails."""
        self._cache_result(digest, None)
        try:
            await self.bucket.delete([str(layout.data(digest))])
        except OSError as error:
            _log.error("{digest} is corrupt, and cannot be deleted: {error}", digest=digest, error=str(error))
        else:
            _log.error("{digest} in the bucket did not match its digest and was deleted", digest=digest)

    async def locate(self, digest: Digest, size: int) -> str | None:
        """Return a presigned URL of the content; None if clients are not to be sent there."""
        if self._lifetime is None or not await self.is_available(digest, size):
            return None
        try:
            return await self.bucket.sign_url(layout.data(digest), self._lifetime)
        except OSError:  # logged by the bucket
            return None

    async def is_available(self, digest: Digest, size: int) -> bool:
        """Report whether a client that is sent to the bucket gets the content.

        The bucket is asked if it has not answered for a moment: it may have failed since.
        """
        health = self.bucket.health
        try:
            if not health.is_recently_healthy:
                self._present.drop(digest)
            found = await self._look_up(digest)
        except OSError:  # logged by the bucket
            return False
        return found is not None and found.size == size and health.failure is None

    async def _open_object(self, digest: Digest, found: _Object) -> IStoredContent | None:
        if found.size:
            return OpenObject(digest, found.size, self, self._clock)
        if digest.matches(b""):
            return StoredBytes(b"")
        await self.report_corrupt(digest)
        return None

    async def _open_manifest(self, repository: Repository, digest: Digest) -> IStoredContent | None:
        if self._absent.get(digest) or self._linked.get((repository, digest, ContentKind.MANIFEST)) is False:
            return None
        opened = await self.bucket.get(layout.data(digest))
        found = self._cache_result(digest, opened)
        if opened is None or found is None:
            return None
        try:
            if not await self._is_linked(repository, digest, ContentKind.MANIFEST, found):
                return None
            if found.size > _MAX_INLINE_MANIFEST:
                return OpenObject(digest, found.size, self, self._clock)
            data = await opened.body.read_all() if found.size else b""
        finally:
            opened.body.close()
        if digest.matches(data):
            return StoredBytes(data)
        await self.report_corrupt(digest)
        return None

    async def _look_up(self, digest: Digest) -> _Object | None:
        if self._absent.get(digest):
            return None
        return self._present.get(digest) or await self._look_ups.get(digest, lambda: self._request(digest))

    async def _request(self, digest: Digest) -> _Object | None:
        return self._cache_result(digest, await self.bucket.get(layout.data(digest), metadata_only=True))

    def _cache_result(self, digest: Digest, opened: StoredObject | None) -> _Object | None:
        """Cache the result of a look-up."""
        if opened is None:
            self._present.drop(digest)
            self._absent.put(digest, True, ABSENT_TTL)
            return None
        found = _Object(opened.size, opened.metadata)
        self._absent.drop(digest)
        self._present.put(digest, found, _PRESENT_TTL)
        return found

    async def _is_linked(
        self, repository: Repository, digest: Digest, kind: ContentKind, found: _Object
    ) -> bool:
        key = repository, digest, kind
        linked = self._linked.get(key)
        if linked is not None:
            return linked
        if found.put_for.get(kind.value) == repository.name:
            self._linked.put(key, True, _LINK_TTL)
            return True
        return await self._link_look_ups.get(key, lambda: self._request_link(key))

    async def _request_link(self, key: _LinkKey) -> bool:
        link = await self.bucket.read(layout.link(*key))
        linked = link is not None and link[0] == str(key[1]).encode()
        linked = linked or bool(self._linked.get(key))  # written meanwhile
        self._linked.put(key, linked, _LINK_TTL if linked else ABSENT_TTL)
        return linked


def link_metadata(repository: Repository, kind: ContentKind) -> dict[str, str]:
    """Return the metadata of a content that is put for a repository."""
    return {kind.value: repository.name}


@implementer(ITagStore)
class BucketTagStore:
    """Tags as links, whose metadata tells when they were confirmed."""

    def __init__(self, bucket: Bucket, clock: IReactorTime) -> None:
        self._bucket = bucket
        self._clock = clock

    async def get(self, repository: Repository, tag: Tag) -> TagEntry | None:
        found = await self._bucket.read(layout.tag_link(repository, tag))
        if found is None:
            return None
        try:
            return TagEntry(Digest.parse(found[0].decode("ascii")), _confirmed(found[1]))
        except (UnicodeDecodeError, DigestInvalid):
            return None

    async def put(self, repository: Repository, tag: Tag, digest: Digest, age: float = 0.0) -> None:
        await self.record(repository, tag, TagEntry(digest, self._clock.seconds() - age))

    async def record(self, repository: Repository, tag: Tag, entry: TagEntry) -> None:
        """Set the tag with the given time of confirmation."""
        link, metadata = str(entry.digest).encode(), {_CONFIRMED: repr(entry.confirmed)}
        await self._bucket.put(layout.tag_history(repository, tag, entry.digest), link)
        await self._bucket.put(layout.tag_link(repository, tag), link, metadata)

    async def forget(self, repository: Repository, tag: Tag) -> None:
        listed = await self._bucket.list(layout.tag_directory(repository, tag))
        await self._bucket.delete([str(layout.tag_link(repository, tag)), *(each.key for each in listed)])

    async def forget_named(self, repository: Repository, digest: Digest) -> None:
        directory = layout.tags_directory(repository)
        history_name = str(layout.TAG_HISTORY / layout.link_name(digest))
        for each in await self._bucket.list(directory):
            name, _, rest = each.key.removeprefix(f"{directory}/").partition("/")
            if rest == history_name:
                current = await self.get(repository, Tag(name))
                if current is not None and current.digest == digest:
                    await self.forget(repository, Tag(name))


def _confirmed(link: StoredObject) -> float:
    """Return the time of confirmation; the modification time for links that no mirror wrote."""
    with suppress(ValueError):
        return float(link.metadata.get(_CONFIRMED, ""))
    return link.modified


@implementer(IDocumentStore)
class BucketDocumentStore:
    """Documents as objects."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    async def read(self, name: str) -> bytes | None:
        read = await self._bucket.read(layout.document(name))
        return read[0] if read else None

    async def write(self, name: str, data: bytes) -> None:
        await self._bucket.put(layout.document(name), data)


@frozen
class NearBucket:
    """A bucket, or a CDN in front of one, that has blobs at the paths of ``layout``.

    :ivar contents: looks blobs up by HEAD, caches the results, and signs the addresses of a bucket.
    :ivar url: the base address of a CDN, whose addresses are not signed; None for a bucket.
    """

    region: Region
    contents: BucketContentStore
    url: str | None = None

    async def locate(self, digest: Digest, size: int) -> str | None:
        """Return the address of a blob; None if it is not there, or that cannot be found out."""
        if self.url is None:
            return await self.contents.locate(digest, size)
        is_there = await self.contents.is_available(digest, size)
        return f"{self.url}/{layout.data(digest)}" if is_there else None


@frozen
class NearBuckets:
    """The buckets and CDNs near clients, and the service that runs their threads."""

    buckets: Sequence[NearBucket]
    service: Service

    def find(self, address: Address) -> NearBucket | None:
        """Return the one whose region has the client."""
        region = find_region(address, [each.region for each in self.buckets])
        return next((each for each in self.buckets if each.region is region), None)


def open_near_buckets(addresses: Sequence[tuple[Region, BucketAddress]], reactor: Any) -> NearBuckets:
    """Open the buckets and CDNs; nothing is requested yet."""
    service, buckets = MultiService(), []
    for region, address in addresses:
        threads = BucketThreadPool()
        threads.setServiceParent(service)
        in_thread = run_in_pool(reactor, threads.pool)
        bucket = Bucket(str(address), address.open, reactor, in_thread, "clients are not sent there")
        contents = BucketContentStore(bucket, reactor, SIGNED_URL_LIFETIME)
        buckets.append(NearBucket(region, contents, address.url.rstrip("/") if address.is_cdn else None))
    return NearBuckets(buckets, service)
