"""Blobs: served from the store, joined while they are downloaded, and downloaded otherwise."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from functools import partial

from attrs import evolve, frozen
from twisted.logger import Logger

from ..body.bodies import CompletionObserver, NoBody
from ..interfaces import (
    Answer,
    ContentKind,
    IBody,
    IBucketBlob,
    IContentStore,
    IDownloadReader,
    IDownloads,
    IRegistry,
    IStoredContent,
)
from ..oci.digest import Descriptor
from ..oci.errors import RegistryError
from ..oci.header_fields import (
    CacheResult,
    CacheStatus,
    ContentRange,
    Range,
    etag_matches,
    format_etag,
    whole_range,
)
from ..oci.media import BLOB_TYPE
from ..oci.request import Blob, RegistryRequest, Repository
from .authorization import Decision, Facts, authorize
from .blob_access import BlobAccess, BucketThenUpstream, Unproven, UpstreamSource
from .error_tolerant_store import ErrorTolerantContentStore
from .generations import Generations
from .upstream_gateway import UpstreamGateway

_MOST_RANGES = 16
_UNVERIFIED = CacheStatus(CacheResult.MISS)
_Headers = tuple[tuple[str, str], ...]

_log = Logger()


@frozen
class BlobRegistries:
    """The registries that blobs are requested from.

    :ivar relay: for blobs that are passed through without being stored.
    :ivar whole: for downloads of whole blobs.
    :ivar parts: for parts of blobs, which are stored as well.
    """

    relay: IRegistry
    whole: IRegistry
    parts: IRegistry


class BlobCache:
    """The blobs of one registry.

    :param registry: its name in the store.
    """

    def __init__(
        self,
        registry: str,
        gateway: UpstreamGateway,
        upstream: BlobRegistries,
        contents: IContentStore,
        downloads: IDownloads,
        generations: Generations,
    ) -> None:
        self._registry = registry
        self._generations = generations
        self._gateway = gateway
        self._upstream = upstream
        self._contents: IContentStore = ErrorTolerantContentStore(contents)
        self._downloads = downloads
        self._access = BlobAccess(gateway, generations, self._contents)

    async def fetch(self, request: RegistryRequest, target: Blob) -> Answer:
        place = self._generations.store_name(target.repository)
        try:
            hit = await self._serve_stored(request, target, place)
            if hit is not None:
                return hit
            if etag_matches(request.if_none_match, target.digest):
                return await self._answer_not_modified(request, target)
            if not request.head and request.range is None:
                return await self._download(request, target, place)
            part = await self._read_part(request, target, place)
            if part is not None:
                return part
        except Unproven:
            _log.debug("{target} is fetched for one client, as nothing else proves consent", target=target)
        return await self._pass_through(request, target)

    def _source(self, request: RegistryRequest, target: Blob) -> UpstreamSource:
        return UpstreamSource(request, target, self._upstream.whole, self._upstream.parts, self._access)

    def _may_download(self, request: RegistryRequest, target: Blob) -> bool:
        """Return whether to download a blob of the bucket: the whole starts it, one range only joins it."""
        if request.range is None or request.range == Range.starting_at(0):
            return True
        return request.range.single is not None and self._downloads.is_downloading(
            self._registry, target.digest
        )

    async def _serve_stored(self, request: RegistryRequest, target: Blob, place: Repository) -> Answer | None:
        """Serve the stored blob, if this client may have it.

        If the blob is not linked to the repository, or the client's authorization is unknown, the upstream is
        asked.  The empty blob is not secret, and needs no authorization.
        """
        in_doubt = await self._generations.tombstone(place, target.digest, ContentKind.BLOB) is not None
        facts, stored = await self._gateway.facts(request), None
        if in_doubt:
            facts = evolve(facts, in_doubt=True)
        allowed = authorize(facts) is Decision.ALLOW
        if allowed:
            stored = await self._contents.open(place, target.digest, ContentKind.BLOB)
        if stored is None and target.digest.matches(b""):
            stored = await self._contents.peek(target.digest)
        elif stored is None and await self._contents.holds(target.digest):
            consented = await self._consult(request, evolve(facts, held=not allowed), target, place)
            facts = await self._gateway.facts(request)  # once the file is open, nothing is waited for
            stored = await self._open_linked(place, target, consented)
        if stored is None:
            return None
        status = CacheStatus(immutable=facts.is_for_everybody)
        if IBucketBlob.providedBy(stored):
            return await self._serve_bucket_blob(request, target, place, stored, status)
        return cached_response(request, stored, Descriptor(BLOB_TYPE, target.digest, stored.size), status)

    async def _consult(self, request: RegistryRequest, facts: Facts, target: Blob, place: Repository) -> bool:
        """Return whether the upstream gives it from this repository; False if it is served stale.

        :raises RegistryError: when the upstream refuses it.
        :raises Unproven: when the upstream's answer proves nothing.
        """
        generation = await self._generations.generation(place)
        try:
            decision = await self._gateway.consult(request, facts, partial(self._access.check, target))
        except RegistryError as error:
            if facts.in_doubt and await self._gateway.is_known_gone(request, error):
                await self._contents.unlink(place, target.digest, ContentKind.BLOB)
            raise
        if decision is Decision.DENY:
            raise Unproven
        if decision is Decision.STALE:
            return False
        return await self._generations.confirm(place, generation, target.digest, ContentKind.BLOB)

    async def _serve_bucket_blob(
        self,
        request: RegistryRequest,
        target: Blob,
        place: Repository,
        stored: IBucketBlob,
        status: CacheStatus,
    ) -> Answer:
        """Serve a blob of the bucket: redirect the client to it, or download it for all clients."""
        descriptor = Descriptor(BLOB_TYPE, target.digest, stored.size)
        unread = request.head or etag_matches(request.if_none_match, target.digest)
        if not unread and status.immutable and (location := await stored.presigned_url()) is not None:
            stored.close()
            return Answer(
                NoBody(Descriptor()),
                307,
                location=location,  # which expires
                headers=(("Cache-Control", "no-store"),),
                cache=CacheStatus(CacheResult.REDIRECTED),
            )
        if unread or not self._may_download(request, target):
            return cached_response(request, stored, descriptor, status)
        source = BucketThenUpstream(stored, self._source(request, target))
        try:
            reader = await self._downloads.join(self._registry, place, target.digest, source)
        except OSError:  # which the store has logged
            return cached_response(request, stored, descriptor, status)
        except BaseException:
            stored.close()
            raise
        return await self._answer_download(request, reader, descriptor, status, source)

    async def _open_linked(self, place: Repository, target: Blob, consented: bool) -> IStoredContent | None:
        """Open the stored blob; link it to the repository first if the upstream gives it from there."""
        stored = await self._contents.open(place, target.digest, ContentKind.BLOB)
        if stored is None and consented and await self._contents.link(place, target.digest, ContentKind.BLOB):
            stored = await self._contents.open(place, target.digest, ContentKind.BLOB)
        return stored

    async def _answer_not_modified(self, request: RegistryRequest, target: Blob) -> Answer:
        """Answer 304 if the client may have the blob; nothing is fetched for that."""
        if not await self._access.check(target, request):
            raise Unproven
        body = NoBody(Descriptor(BLOB_TYPE, target.digest))
        return Answer(body, 304, cache=CacheStatus(CacheResult.MISS))

    async def _pass_through(self, request: RegistryRequest, target: Blob) -> Answer:
        generation = await self._access.generation(target)
        answer = await self._upstream.relay.fetch(request)
        if answer.status == 200 and not request.head:
            consented = partial(
                self._access.record_delivery, request, target, generation, not answer.from_other_host
            )
            answer = evolve(answer, body=CompletionObserver(answer.body, consented))
        return evolve(answer, cache=CacheStatus(CacheResult.MISS))

    async def _download(self, request: RegistryRequest, target: Blob, place: Repository) -> Answer:
        """Begin or join a download, and answer with the blob as it arrives."""
        facts = await self._gateway.facts(request)
        source = self._source(request, target)
        try:
            reader = await self._downloads.join(self._registry, place, target.digest, source)
        except OSError:  # which the store has logged
            return await self._pass_through(request, target)
        descriptor = Descriptor(BLOB_TYPE, target.digest, reader.size)
        result = CacheResult.JOINED if reader.joined else CacheResult.STORED
        status = CacheStatus(result, immutable=facts.is_for_everybody)
        return await self._answer_download(request, reader, descriptor, status, source)

    async def _read_part(self, request: RegistryRequest, target: Blob, place: Repository) -> Answer | None:
        """Answer with a part, whose blocks are fetched for all clients; None if it is to be passed through.

        A part that is not of a download is marked as one that is passed through: it is not verified either.
        """
        span = request.range.single if request.range is not None else None
        if request.head or span is None:
            return None
        facts = await self._gateway.facts(request)
        source = self._source(request, target)
        part = await self._downloads.read_part(self._registry, place, target.digest, span, source)
        if part is None:
            return None
        status = evolve(part.cache, immutable=facts.is_for_everybody) if part.cache else _UNVERIFIED
        return evolve(part, cache=status, upstream_status=source.status)

    async def _answer_download(
        self,
        request: RegistryRequest,
        reader: IDownloadReader,
        descriptor: Descriptor,
        status: CacheStatus,
        source: UpstreamSource | BucketThenUpstream,
    ) -> Answer:
        part, span = None, request.range.single if request.range is not None else None
        if span is not None:
            part = reader.choose_part(span)
            if part is None:
                return await self._pass_through(request, source.target)
            descriptor = evolve(descriptor, size=part.length)
        body = reader.content(descriptor, part)
        if part is None or part.length == part.size:
            body = CompletionObserver(body, source.record_delivery)
        return Answer(
            body,
            200 if part is None else 206,
            part,
            headers=source.headers,
            cache=status,
            upstream_status=source.status,
        )


def cached_response(
    request: RegistryRequest, stored: IStoredContent, descriptor: Descriptor, status: CacheStatus
) -> Answer:
    """Return the answer to a request from a stored content.

    :raises RangeInvalid: when no byte lies in the requested ranges; the content is closed.
    """
    is_match = etag_matches(request.if_none_match, descriptor.digest)
    if is_match or request.head:
        stored.close()
        return Answer(NoBody(descriptor), 304 if is_match else 200, cache=status)
    if request.range is None or len(request.range.spans) > _MOST_RANGES:
        return Answer(stored.body(descriptor, whole_range(stored.size)), cache=status)
    try:
        parts = request.range.resolve(stored.size)
    except Exception:
        stored.close()
        raise
    if len(parts) > 1:
        content = _multipart(stored, descriptor, parts)
        return Answer(content, 206, headers=_of_whole(descriptor), cache=status)
    return Answer(_part(stored, descriptor, parts[0]), 206, parts[0], cache=status)


def _of_whole(descriptor: Descriptor) -> _Headers:
    """Return the headers of the whole content that an answer with several parts needs.

    Source: RFC 9110, 15.3.7.
    """
    assert descriptor.digest is not None
    return (("ETag", format_etag(descriptor.digest)), ("Accept-Ranges", "bytes"))


def _part(stored: IStoredContent, descriptor: Descriptor, part: ContentRange) -> IBody:
    return stored.body(evolve(descriptor, size=part.length), (part,))


def _multipart(stored: IStoredContent, descriptor: Descriptor, parts: Iterable[ContentRange]) -> IBody:
    """Source: RFC 9110, 14.6."""
    boundary = secrets.token_hex(16)
    segments: list[bytes | ContentRange] = []
    for part in parts:
        head = f"\r\n--{boundary}\r\nContent-Type: {descriptor.media_type}\r\nContent-Range: {part}\r\n\r\n"
        segments += [head.encode(), part]
    segments.append(f"\r\n--{boundary}--\r\n".encode())
    size = sum(len(s) if isinstance(s, bytes) else s.length for s in segments)
    return stored.body(Descriptor(f"multipart/byteranges; boundary={boundary}", None, size), segments)
