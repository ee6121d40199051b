"""The pull-through cache as a registry."""

from __future__ import annotations

from zope.interface import implementer

from ..interfaces import Answer, IRegistry
from ..oci.request import Blob, Catalog, Manifest, Ping, Referrers, Request, Tags
from ..oci.token import TokenRequest
from .asking import Asking
from .blobs import Blobs
from .handshake import Handshake
from .held import bypassed
from .lists import Lists
from .manifests import Manifests


@implementer(IRegistry)
class PullThrough:
    """Serves what is held to those who may have it, and fetches what is not."""

    def __init__(
        self, asking: Asking, handshake: Handshake, manifests: Manifests, blobs: Blobs, lists: Lists
    ) -> None:
        self._asking = asking
        self._handshake = handshake
        self._manifests = manifests
        self._blobs = blobs
        self._lists = lists

    async def fetch(self, request: Request) -> Answer:
        """See ``IRegistry``."""
        match request.target:
            case Ping():
                return await self._handshake.ping(request)
            case Manifest() as target:
                return await self._manifests.fetch(request, target)
            case Blob() as target:
                return await self._blobs.fetch(request, target)
            case Tags() | Referrers() as target:
                return await self._lists.fetch(request, target)
            case Catalog():
                return bypassed(await self._asking.ask(request))

    async def token(self, request: TokenRequest) -> Answer:
        """See ``IRegistry``."""
        return await self._handshake.token(request)
