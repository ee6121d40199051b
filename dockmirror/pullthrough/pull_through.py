"""The pull-through cache as a registry."""

from __future__ import annotations

from zope.interface import implementer

from ..interfaces import Answer, IRegistry
from ..oci.errors import Denied, RegistryError, Unauthorized
from ..oci.request import Blob, Catalog, Manifest, Ping, Referrers, RegistryRequest, Tags, Target
from .blobs import BlobCache
from .list_cache import ListCache
from .login_cache import LoginCache
from .manifests import ManifestCache
from .upstream_gateway import UpstreamGateway, bypassed


@implementer(IRegistry)
class PullThrough:
    """Serves stored content to authorized clients, and fetches the rest."""

    def __init__(
        self,
        gateway: UpstreamGateway,
        logins: LoginCache,
        manifests: ManifestCache,
        blobs: BlobCache,
        lists: ListCache,
    ) -> None:
        self._gateway = gateway
        self._logins = logins
        self._manifests = manifests
        self._blobs = blobs
        self._lists = lists

    async def fetch(self, request: RegistryRequest) -> Answer:
        try:
            return await self._fetch(request)
        except RegistryError as error:
            raise _without_details(request.target, error) from error

    async def _fetch(self, request: RegistryRequest) -> Answer:
        match request.target:
            case Ping():
                return await self._logins.ping(request)
            case Manifest() as target:
                return await self._manifests.fetch(request, target)
            case Blob() as target:
                return await self._blobs.fetch(request, target)
            case Tags() | Referrers() as target:
                return await self._lists.fetch(request, target)
            case Catalog():
                return bypassed(await self._gateway.fetch(request))


def _without_details(target: Target, error: RegistryError) -> RegistryError:
    """Return the refusal of a digest without details that would reveal whether the content is stored.

    The upstream is asked about stored content in another way, and its refusal reads differently.
    """
    by_digest = isinstance(target, Blob) or (isinstance(target, Manifest) and target.digest is not None)
    if not by_digest or error.upstream_status != error.status:
        return error
    rows: dict[int, type[RegistryError]] = {401: Unauthorized, 403: Denied, 404: target.unknown}
    if error.status not in rows:
        return error
    return rows[error.status](
        challenges=error.challenges,
        upstream_status=error.upstream_status,
        from_other_host=error.from_other_host,
    )
