"""Quarantine of blobs that an address of an upstream has sent wrong."""

from __future__ import annotations

from attrs import evolve
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from ..body.verified import CorruptContent
from ..concurrency.caching import TTLCache
from ..interfaces import Answer, IUpstream
from ..oci.digest import Digest
from ..oci.request import Blob, RegistryRequest
from ..oci.token import TokenRequest

DURATION = 60.0
"""Seconds for which a wrong blob is not fetched again."""
_MOST = 10_000


class Quarantined(CorruptContent):
    """The address has sent wrong bytes for the blob within the last minute; another address may have it."""


@implementer(IUpstream)
class CorruptBlobQuarantine:
    """An address of an upstream that is not asked for a blob which it has just sent wrong.

    The store, which verifies blobs, reports wrong ones by ``Answer.reject``.  Only requests for the whole
    blob or its rest are refused: the upstream is still asked whether a client may have it.
    """

    def __init__(self, registry: IUpstream, clock: IReactorTime) -> None:
        self._registry = registry
        self._rejected: TTLCache[Digest, bool] = TTLCache(clock, _MOST)

    async def token(self, request: TokenRequest) -> Answer:
        return await self._registry.token(request)

    async def fetch(self, request: RegistryRequest) -> Answer:
        """:raises Quarantined: for a blob in quarantine."""
        target = request.target
        if isinstance(target, Blob) and _reaches_the_end(request) and self._rejected.get(target.digest):
            raise Quarantined(f"the upstream has just sent wrong bytes for {target.digest}")
        return evolve(await self._registry.fetch(request), reject=self._reject)

    def _reject(self, digest: Digest) -> None:
        self._rejected.put(digest, True, DURATION)


def _reaches_the_end(request: RegistryRequest) -> bool:
    """Return whether the request is for all of a content or for its rest."""
    if request.head:
        return False
    span = request.range.single if request.range else None
    return request.range is None or (span is not None and span.first is not None and span.last is None)
