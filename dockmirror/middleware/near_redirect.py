"""Redirect clients to a copy of the bucket near them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from zope.interface import implementer

from ..body.bodies import NoBody
from ..interfaces import Answer, IRegistry
from ..oci.digest import Descriptor, Digest
from ..oci.header_fields import CacheResult, CacheStatus
from ..oci.request import Blob, RegistryRequest, Repository
from ..system.networks import Address, Region, parse_address


class NearCopy(Protocol):
    """A copy of blobs near some clients."""

    @property
    def region(self) -> Region:
        """The region of these clients."""

    async def locate(self, digest: Digest, size: int) -> str | None:
        """Return the address of a blob; None if it is not known to be there in this size."""


@implementer(IRegistry)
class NearRedirect:
    """Redirects a GET of a blob that the cache serves to everybody, if a copy near the client has it.

    All other requests are answered as before, so a copy grants nothing and hides no failure.

    :param is_public: returns whether everybody may have what all clients of the mirror may have of a
        repository; False if the mirror has an account for it.
    :param find: returns the copy near an address; None if there is none.
    :param count: is called with the region and the address of each client that is redirected.
    """

    def __init__(
        self,
        registry: IRegistry,
        is_public: Callable[[Repository], bool],
        find: Callable[[Address], NearCopy | None],
        count: Callable[[Region, Address], None],
    ) -> None:
        self._registry = registry
        self._is_public = is_public
        self._find = find
        self._count = count

    async def fetch(self, request: RegistryRequest) -> Answer:
        answer, target = await self._registry.fetch(request), request.target
        if not isinstance(target, Blob) or not _may_be_elsewhere(request, answer):
            return answer
        address = _client_of(request) if self._is_public(target.repository) else None
        copy = self._find(address) if address is not None else None
        size = _size_of(answer)
        if address is None or copy is None or size is None:
            return answer
        try:
            location = await copy.locate(target.digest, size)
        except BaseException:  # the client left
            answer.body.discard()
            raise
        if location is None:
            return answer
        answer.body.discard()
        self._count(copy.region, address)
        return Answer(
            NoBody(Descriptor()),
            307,
            location=location,  # which may expire
            headers=(("Cache-Control", "no-store"),),
            cache=CacheStatus(CacheResult.REDIRECTED),
        )


def _may_be_elsewhere(request: RegistryRequest, answer: Answer) -> bool:
    """Return whether the answer has bytes that the cache would give to everybody."""
    status = answer.cache
    is_public_hit = status is not None and status.result is CacheResult.HIT and status.immutable
    return is_public_hit and answer.status in (200, 206) and not request.head


def _size_of(answer: Answer) -> int | None:
    """Return the size of the whole blob; None if the answer, which has several parts of it, does not say."""
    if answer.content_range is not None:
        return answer.content_range.size
    return answer.body.descriptor.size if answer.status == 200 else None


def _client_of(request: RegistryRequest) -> Address | None:
    """Return the address of a client; None for the mirror's own requests, and for a UNIX socket."""
    text = request.received.requester.address if request.received is not None else ""
    try:
        return parse_address(text)
    except ValueError:
        return None
