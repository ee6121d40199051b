"""Blobs: served where they are held, joined where they are on their way, fetched and kept otherwise."""

from __future__ import annotations

from functools import partial

from attrs import evolve
from twisted.logger import Logger

from ..body.in_memory import NoBody
from ..body.wrappers import CompletionObserver
from ..interfaces import (
    Answer,
    ContentKind,
    IBucketBlob,
    IContentStore,
    IDownloadReader,
    IDownloads,
    IRegistry,
    IStoredContent,
)
from ..oci.cache_status import CacheResult, CacheStatus
from ..oci.descriptor import Descriptor
from ..oci.errors import RangeInvalid, RegistryError
from ..oci.etag import etag_matches
from ..oci.ranges import ContentRange, Range
from ..oci.reference import Repository
from ..oci.request import Blob, RegistryRequest
from .authorization import Decision, Facts, authorize
from .blob_access import BlobAccess, BucketThenUpstream, Unproven, UpstreamSource
from .error_tolerant_store import ErrorTolerantContentStore
from .generations import ReadOnlyGenerations
from .responses import cached_response
from .upstream_gateway import UpstreamGateway

LONG = 5.0
"""Seconds that a range may have to wait for a growing blob; what would take longer is passed through."""
_TYPE = "application/octet-stream"


_log = Logger()


class BlobCache:
    """The blobs of one registry.

    :param registry: its name in the store.
    :param changes: of this registry, through the mirror.
    :param relay: what passes a blob through without keeping it.
    :param filling: of which growing blobs are fetched.
    """

    def __init__(
        self,
        registry: str,
        gateway: UpstreamGateway,
        relay: IRegistry,
        filling: IRegistry,
        contents: IContentStore,
        downloads: IDownloads,
        changes: ReadOnlyGenerations,
    ) -> None:
        self._registry = registry
        self._changes = changes
        self._gateway = gateway
        self._relay = relay
        self._filling = filling
        self._contents: IContentStore = ErrorTolerantContentStore(contents)
        self._downloads = downloads
        self._access = BlobAccess(gateway, changes, self._contents)

    async def fetch(self, request: RegistryRequest, target: Blob) -> Answer:
        """See ``IRegistry``."""
        place = self._changes.place(target.repository)
        try:
            hit = await self._hit(request, target, place)
            if hit is not None:
                return hit
            if etag_matches(request.if_none_match, target.digest):
                return await self._unchanged(request, target)
            if not request.head and self._may_join(request, target):
                return await self._grown(request, target, place)
        except Unproven:
            _log.debug("{target} is fetched for one client: nothing else proves its right", target=target)
        return await self._passed(request, target)

    def _may_join(self, request: RegistryRequest, target: Blob) -> bool:
        """Return whether to use a download: a request for the whole starts one, one range only joins it."""
        if request.range is None or request.range == Range.starting_at(0):
            return True
        return request.range.single is not None and self._downloads.is_downloading(
            self._registry, target.digest
        )

    async def _hit(self, request: RegistryRequest, target: Blob, place: Repository) -> Answer | None:
        """Serve the stored blob, if this client may have it.

        Where the repository is not linked to it, or the client's right is not known, the upstream says.  An
        empty blob tells nothing, and needs no right.
        """
        in_doubt = await self._changes.deletion(place, target.digest, ContentKind.BLOB) is not None
        facts, opened = evolve(await self._gateway.facts(request), in_doubt=in_doubt), None
        allowed = authorize(facts) is Decision.ALLOW
        if allowed:
            opened = await self._contents.open(place, target.digest, ContentKind.BLOB)
        if opened is None and target.digest.matches(b""):
            opened = await self._contents.peek(target.digest)
        elif opened is None and await self._contents.holds(target.digest):
            given = await self._given(request, evolve(facts, held=not allowed), target, place)
            opened = await self._opened(place, target, given)
        if opened is None:
            return None
        told = await self._told(request)
        if IBucketBlob.providedBy(opened):
            return await self._distant(request, target, place, opened, told)
        return cached_response(request, opened, Descriptor(_TYPE, target.digest, opened.size), told)

    async def _given(self, request: RegistryRequest, facts: Facts, target: Blob, place: Repository) -> bool:
        """Return whether the upstream gives it from this repository; False where it is served stale.

        :raises RegistryError: when it is refused.
        :raises Unproven: when the upstream's answer proves nothing.
        """
        mark = await self._changes.generation(place)
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
        return await self._changes.given(place, mark, target.digest, ContentKind.BLOB)

    async def _distant(
        self,
        request: RegistryRequest,
        target: Blob,
        place: Repository,
        opened: IBucketBlob,
        told: CacheStatus,
    ) -> Answer:
        """Serve a blob of the bucket: redirect the client to it, or download it for all clients."""
        descriptor = Descriptor(_TYPE, target.digest, opened.size)
        unread = request.head or etag_matches(request.if_none_match, target.digest)
        if not unread and told.immutable and (location := await opened.presigned_url()) is not None:
            opened.close()
            return Answer(
                NoBody(Descriptor()),
                307,
                location=location,  # which expires
                headers=(("Cache-Control", "no-store"),),
                cache=CacheStatus(CacheResult.REDIRECTED),
            )
        if unread or not self._may_join(request, target):
            return cached_response(request, opened, descriptor, told)
        source = BucketThenUpstream(opened, UpstreamSource(request, target, self._filling, self._access))
        try:
            reader = await self._downloads.join(self._registry, place, target.digest, source)
        except OSError:  # of which the store has told
            return cached_response(request, opened, descriptor, told)
        except BaseException:
            opened.close()
            raise
        return await self._growing(request, reader, descriptor, told, source)

    async def _told(self, request: RegistryRequest) -> CacheStatus:
        return CacheStatus(immutable=(await self._gateway.facts(request)).is_for_everybody)

    async def _opened(self, place: Repository, target: Blob, given: bool) -> IStoredContent | None:
        """Open the stored blob; link it to the repository first if the upstream gives it from there."""
        opened = await self._contents.open(place, target.digest, ContentKind.BLOB)
        if opened is None and given and await self._contents.link(place, target.digest, ContentKind.BLOB):
            opened = await self._contents.open(place, target.digest, ContentKind.BLOB)
        return opened

    async def _unchanged(self, request: RegistryRequest, target: Blob) -> Answer:
        """For one who has it already: nothing is fetched for that."""
        if not await self._access.check(target, request):
            raise Unproven
        body = NoBody(Descriptor(_TYPE, target.digest))
        return Answer(body, 304, cache=CacheStatus(CacheResult.MISS))

    async def _passed(self, request: RegistryRequest, target: Blob) -> Answer:
        mark = await self._access.mark(target)
        answer = await self._relay.fetch(request)
        if answer.status == 200 and not request.head:
            given = partial(self._access.complete, request, target, mark, not answer.from_other_host)
            answer = evolve(answer, body=CompletionObserver(answer.body, given))
        return evolve(answer, cache=CacheStatus(CacheResult.MISS))

    async def _grown(self, request: RegistryRequest, target: Blob, place: Repository) -> Answer:
        """The blob as it arrives."""
        told = await self._told(request)
        source = UpstreamSource(request, target, self._filling, self._access)
        try:
            reader = await self._downloads.join(self._registry, place, target.digest, source)
        except OSError:  # of which the store has told
            return await self._passed(request, target)
        descriptor = Descriptor(_TYPE, target.digest, reader.size)
        told = evolve(told, result=CacheResult.JOINED if reader.joined else CacheResult.STORED)
        return await self._growing(request, reader, descriptor, told, source)

    async def _growing(
        self,
        request: RegistryRequest,
        reader: IDownloadReader,
        descriptor: Descriptor,
        told: CacheStatus,
        source: UpstreamSource | BucketThenUpstream,
    ) -> Answer:
        if request.range is None:
            content = CompletionObserver(reader.content(descriptor, None), source.completed)
            return Answer(content, cache=told, upstream_status=source.status)
        answer = await self._grown_part(request, request.range, reader, descriptor, told, source)
        return evolve(answer, upstream_status=answer.upstream_status or source.status)

    async def _grown_part(
        self,
        request: RegistryRequest,
        wanted: Range,
        reader: IDownloadReader,
        descriptor: Descriptor,
        told: CacheStatus,
        source: UpstreamSource | BucketThenUpstream,
    ) -> Answer:
        try:
            part = _part(wanted, reader)
        except RangeInvalid:
            reader.leave()
            raise
        if part is None:
            reader.leave()
            return await self._passed(request, source.target)
        content = reader.content(evolve(descriptor, size=part.length), part)
        if part.length == part.size:
            content = CompletionObserver(content, source.completed)
        return Answer(content, 206, content_range=part, cache=told)


def _part(wanted: Range, reader: IDownloadReader) -> ContentRange | None:
    """The part of a growing blob; None where its size is not known, or its beginning is far.

    :raises RangeInvalid: when there is no such part.
    """
    if reader.size is None:
        return None
    (part,) = wanted.resolve(reader.size)
    beginning = ContentRange(part.first, part.first, part.size)
    return part if part.first == 0 or reader.seconds_until(beginning) <= LONG else None
