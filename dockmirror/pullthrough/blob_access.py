"""Access to a blob that is stored or being downloaded: consent, and the source for each client."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

from attrs import evolve
from zope.interface import implementer

from ..body.in_memory import collect
from ..concurrency.caching import SingleFlight
from ..interfaces import Answer, IBucketBlob, IContentStore, IRegistry, ISource
from ..oci.consent import SAMPLE, HeldBlob, Sample, sampled_part
from ..oci.descriptor import Descriptor
from ..oci.errors import RegistryError, Unreachable
from ..oci.ranges import Range
from ..oci.request import Blob, RegistryRequest
from .generations import ReadOnlyGenerations
from .upstream_gateway import UpstreamGateway


class Unproven(Exception):
    """An upstream's answer does not prove that it gives a held content; see ``oci/consent.py``."""


class BlobAccess:
    """Asks the upstream whether a client may have a blob, unless it has said so already.

    The same question is asked once at a time.  What was said before the repository changed does not count.
    """

    def __init__(
        self, gateway: UpstreamGateway, changes: ReadOnlyGenerations, contents: IContentStore
    ) -> None:
        self._gateway = gateway
        self.grants = gateway.grants
        self._changes = changes
        self._contents = contents
        self._joined: SingleFlight[tuple[RegistryRequest, bytes], bool] = SingleFlight()

    async def check(
        self, target: Blob, request: RegistryRequest, have_stale: bool = False, joined: HeldBlob | None = None
    ) -> bool:
        """See ``Check``.

        Where the client may pull from the repository, it is enough that anybody was given the blob there.
        What everybody may have this client may, too; otherwise its own credentials decide.

        :param joined: the blob, where it is being downloaded.  Then it is enough that the upstream has begun
            to give it, to the same credentials or, where the client may pull from there, to anybody.
        :raises RegistryError: when the client may not have it, or the upstream does not say.
        """
        mark, facts = await self.mark(target), await self._gateway.facts(request)
        if joined and self.grants.began(target, mark, request.credentials):
            return True
        if facts.is_authorized and self.grants.gave(target, mark, or_began=joined is not None):
            return True
        asked = RegistryRequest(
            target, credentials=request.credentials, held=joined or await self._held(target)
        )
        if facts.public and not facts.anonymous:
            with suppress(RegistryError):
                if await self._ask(evolve(asked, credentials=None), target, have_stale):
                    return True
        return await self._ask(asked, target, have_stale)

    async def mark(self, target: Blob) -> bytes:
        """The mark of its repository; see ``Generations``."""
        return await self._changes.generation(self._changes.place(target.repository))

    async def complete(self, request: RegistryRequest, target: Blob, mark: bytes, consents: bool) -> None:
        """Note that the upstream gave the blob, whole and right.

        :param consents: whether it was the upstream itself, and no other registry.
        """
        self.grants.give(target, mark)
        if consents:
            await self._gateway.consented(request)

    async def _ask(self, asked: RegistryRequest, target: Blob, have_stale: bool) -> bool:
        mark = await self.mark(target)
        given = await self._joined.get((asked, mark), lambda: self._gateway.check(asked, have_stale))
        if given:
            self.grants.give(target, mark)
        return given

    async def _held(self, target: Blob) -> HeldBlob | None:
        opened = await self._contents.peek(target.digest)
        if opened is None:
            return None
        opened.close()
        return HeldBlob(opened.size, partial(self._sample, target))

    async def _sample(self, target: Blob) -> Sample | None:
        opened = await self._contents.peek(target.digest)
        if opened is None:
            return None
        part = sampled_part(opened.size)
        try:
            return Sample(part, await collect(opened.body(Descriptor(size=part.length), (part,)), SAMPLE))
        except RegistryError:
            return None


@implementer(ISource)
class UpstreamSource:
    """The source of a blob for one client: its path and its credentials."""

    def __init__(
        self, request: RegistryRequest, target: Blob, registry: IRegistry, access: BlobAccess
    ) -> None:
        self._request = evolve(request, range=None, if_none_match=None, head=False)
        self.target = target
        self._registry = registry
        self._access = access
        self.status: int | None = None
        self._opened: tuple[bytes, bool] | None = None

    async def open(self, offset: int) -> Answer:
        """See ``ISource``."""
        wanted = Range.starting_at(offset) if offset else None
        mark = await self._access.mark(self.target)
        answer = await self._registry.fetch(evolve(self._request, range=wanted))
        self.status = answer.upstream_status
        self._opened = mark, not answer.from_other_host
        self._access.grants.begin(self.target, mark, self._request.credentials)
        return answer

    async def check(self, held: HeldBlob) -> None:
        """See ``ISource``.

        :raises Unproven: when the upstream's answer proves nothing.
        """
        if not await self._access.check(self.target, self._request, joined=held):
            raise Unproven

    async def completed(self) -> None:
        """Note that the blob was delivered, whole and right: where this has fetched it, that is consent."""
        if self._opened is not None:
            mark, consents = self._opened
            await self._access.complete(self._request, self.target, mark, consents)


@implementer(ISource)
class BucketThenUpstream:
    """Fetches a blob from the bucket, and from its upstream while that does not give it.

    The reader's right to the blob is known.
    """

    def __init__(self, opened: IBucketBlob, upstream: UpstreamSource) -> None:
        self.target = upstream.target
        self._opened = opened
        self._upstream = upstream

    @property
    def status(self) -> int | None:
        """The upstream's answer; None where it was not asked."""
        return self._upstream.status

    async def open(self, offset: int) -> Answer:
        """See ``ISource``."""
        try:
            return await self._opened.open(offset)
        except Unreachable:
            return await self._upstream.open(offset)

    async def check(self, held: HeldBlob) -> None:
        """See ``ISource``; nobody is asked."""

    async def completed(self) -> None:
        """See ``UpstreamSource``."""
        await self._upstream.completed()
