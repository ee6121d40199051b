"""Blobs that an address of an upstream gave wrong, and that it is not asked for again at once."""

from __future__ import annotations

from attrs import evolve
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from ..body.verified import CorruptContent
from ..concurrency.ttl_cache import TTLCache
from ..interfaces import Answer, IRegistry
from ..oci.digest import Digest
from ..oci.request import Blob, RegistryRequest
from ..oci.token import TokenRequest

DURATION = 60.0
"""Seconds for which a blob that was wrong is not asked for again."""
_MOST = 10_000


class Quarantined(CorruptContent):
    """This address has sent wrong bytes for the blob within the last minute; another one may have it."""


@implementer(IRegistry)
class CorruptBlobQuarantine:
    """A registry at one address, which is not asked for a blob that it has just given wrong.

    The store, which verifies blobs, reports wrong ones by ``Answer.reject``.  Only requests for the whole
    blob, or for its rest, are refused: the upstream is still asked whether a client may have it.
    """

    def __init__(self, registry: IRegistry, clock: IReactorTime) -> None:
        self._registry = registry
        self._rejected: TTLCache[Digest, bool] = TTLCache(clock, _MOST)

    async def token(self, request: TokenRequest) -> Answer:
        """See ``IRegistry``."""
        return await self._registry.token(request)

    async def fetch(self, request: RegistryRequest) -> Answer:
        """See ``IRegistry``.

        :raises Quarantined: for a blob whose bytes from here were wrong.
        """
        target = request.target
        if isinstance(target, Blob) and _is_to_the_end(request) and self._rejected.get(target.digest):
            raise Quarantined(f"the upstream has sent wrong bytes for {target.digest} a moment ago")
        return evolve(await self._registry.fetch(request), reject=self._reject)

    def _reject(self, digest: Digest) -> None:
        self._rejected.put(digest, True, DURATION)


def _is_to_the_end(request: RegistryRequest) -> bool:
    """Return whether all of a content is asked for, or the rest of it, and not just whether it is there."""
    if request.head:
        return False
    span = request.range.single if request.range else None
    return request.range is None or (span is not None and span.first is not None and span.last is None)
