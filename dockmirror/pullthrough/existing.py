"""What is there already, asked of the upstream: who pushes leaves that out.

Docker, containerd and skopeo ask by HEAD for each blob and manifest before they send it.  What the cache
holds may have been deleted at the upstream since; if it answered, the push would leave out what is missed.
"""

from __future__ import annotations

from zope.interface import implementer

from ..interfaces import Answer, IRegistry
from ..oci.errors import RegistryError, Unsupported
from ..oci.request import Blob, Manifest, Request
from ..oci.token import TokenRequest
from ..work.resting import is_outage
from .asking import Asking
from .held import bypassed


@implementer(IRegistry)
class Existing:
    """In front of the cache of a registry that is written to.

    A tag without credentials is answered by the cache: who asks so mostly pulls.
    """

    def __init__(self, cached: IRegistry, asking: Asking) -> None:
        self._cached = cached
        self._asking = asking

    async def fetch(self, request: Request) -> Answer:
        """See ``IRegistry``; while the upstream says nothing, what is held stands in."""
        if not _may_be_of_a_push(request):
            return await self._cached.fetch(request)
        try:
            return bypassed(await self._asking.ask(request, can_answer=True))
        except RegistryError as error:
            if not is_outage(error) and not isinstance(error, Unsupported):
                raise
        return await self._cached.fetch(request)

    async def token(self, request: TokenRequest) -> Answer:
        """See ``IRegistry``."""
        return await self._cached.token(request)


def _may_be_of_a_push(request: Request) -> bool:
    match request.target:
        case Blob():
            return request.head
        case Manifest() as target:
            return request.head and (target.digest is not None or request.credentials is not None)
    return False
