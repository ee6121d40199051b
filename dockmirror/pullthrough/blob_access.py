"""Access to a blob that is stored or being downloaded: consent, and the source for each client."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

from attrs import evolve
from zope.interface import implementer

from ..body.bodies import collect
from ..concurrency.coroutines import SingleFlight
from ..interfaces import Answer, IBucketBlob, IContentStore, IPartSource, IRegistry, ISource
from ..oci.consent import SAMPLE, HeldBlob
from ..oci.digest import Descriptor
from ..oci.errors import RegistryError, Unreachable
from ..oci.header_fields import ContentRange, Range
from ..oci.request import Blob, RegistryRequest
from .generations import Generations
from .upstream_gateway import UpstreamGateway


class Unproven(Exception):
    """An upstream's answer is no consent to a held content; see ``oci/consent.py``."""


class BlobAccess:
    """Asks the upstream whether a client may have a blob, unless its consent is remembered.

    Concurrent checks for the same request share one.  Consent from an earlier generation does not count.
    """

    def __init__(self, gateway: UpstreamGateway, generations: Generations, contents: IContentStore) -> None:
        self._gateway = gateway
        self.grants = gateway.grants
        self._generations = generations
        self._contents = contents
        self._checks: SingleFlight[tuple[RegistryRequest, bytes], bool] = SingleFlight()

    async def check(
        self, target: Blob, request: RegistryRequest, have_stale: bool = False, joined: HeldBlob | None = None
    ) -> bool:
        """Return whether the upstream gives the blob to this client.

        If the client may pull from the repository, it is enough that any client was given the blob there.
        For a public repository, the mirror's anonymous request decides first, then the client's credentials.

        :param joined: the blob, if it is being downloaded.  Then it is enough that the upstream has begun to
            send something of its size: to the same credentials, or to any if the client may pull from the
            repository.
        :raises RegistryError: when the client may not have it, or the upstream does not answer.
        """
        generation, facts = await self.generation(target), await self._gateway.facts(request)
        size = joined.size if joined else None
        if self.grants.has_begun(target, generation, request.credentials, size):
            return True
        if facts.is_authorized and self.grants.has_consented(target, generation, size):
            return True
        check_request = RegistryRequest(
            target, credentials=request.credentials, held=joined or await self._find_held(target)
        )
        if facts.public and not facts.anonymous:
            with suppress(RegistryError):
                if await self._check_once(evolve(check_request, credentials=None), target, have_stale):
                    return True
        return await self._check_once(check_request, target, have_stale)

    async def generation(self, target: Blob) -> bytes:
        """Return the generation of its repository."""
        return await self._generations.generation(self._generations.store_name(target.repository))

    async def record_delivery(
        self, request: RegistryRequest, target: Blob, generation: bytes, consents: bool
    ) -> None:
        """Record that the complete, verified blob was received.

        :param consents: True if it came from the upstream itself, and not from another registry.
        """
        self.grants.record_consent(target, generation)
        if consents:
            await self._gateway.record_consent(request)

    async def _check_once(self, check_request: RegistryRequest, target: Blob, have_stale: bool) -> bool:
        generation = await self.generation(target)
        consented = await self._checks.get(
            (check_request, generation), lambda: self._gateway.check(check_request, have_stale)
        )
        if consented:
            self.grants.record_consent(target, generation)
        return consented

    async def _find_held(self, target: Blob) -> HeldBlob | None:
        stored = await self._contents.peek(target.digest)
        if stored is None:
            return None
        stored.close()
        return HeldBlob(stored.size, partial(self._read, target))

    async def _read(self, target: Blob, part: ContentRange) -> bytes | None:
        stored = await self._contents.peek(target.digest)
        if stored is None:
            return None
        try:
            return await collect(stored.body(Descriptor(size=part.length), (part,)), SAMPLE)
        except RegistryError:
            return None


@implementer(IPartSource)
class UpstreamSource:
    """Fetches a blob, or parts of it, for one client, with its path and its credentials.

    :param registry: gives blobs from an offset on.
    :param parts: gives parts, each by one request.
    """

    def __init__(
        self,
        request: RegistryRequest,
        target: Blob,
        registry: IRegistry,
        parts: IRegistry,
        access: BlobAccess,
    ) -> None:
        self._request = evolve(request, range=None, if_none_match=None, head=False)
        self.target = target
        self._registry = registry
        self._parts = parts
        self._access = access
        self.status: int | None = None
        self.headers: tuple[tuple[str, str], ...] = ()
        self._opened: tuple[bytes, bool] | None = None

    async def open(self, offset: int) -> Answer:
        generation = await self._access.generation(self.target)
        requested = Range.starting_at(offset) if offset else None
        answer = await self._fetch(self._registry, requested, generation)
        self._opened = generation, not answer.from_other_host
        return answer

    async def open_part(self, first: int, last: int) -> Answer:
        generation = await self._access.generation(self.target)
        return await self._fetch(self._parts, Range.starting_at(first, last), generation)

    async def _fetch(self, registry: IRegistry, requested: Range | None, generation: bytes) -> Answer:
        answer = await registry.fetch(evolve(self._request, range=requested))
        self.status, self.headers = answer.upstream_status, answer.headers
        part = answer.content_range
        size = answer.body.descriptor.size if part is None else part.size
        if size is not None and answer.status in (200, 206):
            self._access.grants.record_begin(self.target, generation, self._request.credentials, size)
        return answer

    async def check(self, held: HeldBlob) -> None:
        """:raises Unproven: when the upstream's answer proves nothing."""
        if not await self._access.check(self.target, self._request, joined=held):
            raise Unproven

    async def record_delivery(self) -> None:
        """Record that the complete blob was delivered; that is consent if this source has fetched it."""
        if self._opened is not None:
            generation, consents = self._opened
            await self._access.record_delivery(self._request, self.target, generation, consents)


@implementer(ISource)
class BucketThenUpstream:
    """Fetches a blob from the bucket, or from the upstream if that fails, for an authorized reader."""

    def __init__(self, stored: IBucketBlob, upstream: UpstreamSource) -> None:
        self.target = upstream.target
        self._opened = stored
        self._upstream = upstream

    @property
    def status(self) -> int | None:
        """The upstream's status; None if it was not asked."""
        return self._upstream.status

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """The upstream's headers that are passed on; none if it was not asked."""
        return self._upstream.headers

    async def open(self, offset: int) -> Answer:
        try:
            return await self._opened.open(offset)
        except Unreachable:
            return await self._upstream.open(offset)

    async def check(self, held: HeldBlob) -> None:
        """Do nothing: the reader is authorized."""

    async def record_delivery(self) -> None:
        await self._upstream.record_delivery()
