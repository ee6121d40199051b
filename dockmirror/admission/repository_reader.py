"""More of a repository, read through the cache as the client that requests a subject."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence

from attrs import frozen

from ..body.in_memory import collect
from ..interfaces import IRegistry
from ..oci.digest import Digest
from ..oci.errors import DigestInvalid, RegistryError, Unavailable
from ..oci.manifest import ManifestDocument
from ..oci.media import EVERYTHING
from ..oci.reference import Reference, Repository, Tag
from ..oci.request import Blob, Manifest, Referrers, RegistryRequest, Requester, Target

_MANIFEST_LIMIT = 4 * 1024 * 1024


@frozen
class RepositoryReader:
    """Reads manifests, blobs and referrers of one repository.

    :ivar registry: the registry below admission.
    :ivar request: the client's request, whose credentials are used.
    :ivar peek: returns held bytes, of a blob for which the registry redirects clients to the bucket.
    """

    registry: IRegistry
    repository: Repository
    request: RegistryRequest
    peek: Callable[[Digest, int], Awaitable[bytes | None]]

    @property
    def requester(self) -> Requester:
        """The client, as it is told to policy servers."""
        received = self.request.received
        return Requester() if received is None else received.requester

    async def manifest(self, reference: Reference) -> bytes | None:
        """Return a manifest, or None if the repository has none of that name.

        :raises RegistryError: when it cannot be had.
        """
        return await self._read(Manifest(self.repository, reference), _MANIFEST_LIMIT)

    async def document(self, digest: Digest) -> ManifestDocument | None:
        """Return a parsed manifest, or None if there is none or it is of an unknown type.

        :raises RegistryError: when it cannot be had.
        """
        data = await self.manifest(digest)
        return None if data is None else ManifestDocument.parse(data)

    async def blob(self, digest: Digest, limit: int) -> bytes | None:
        """Return a blob of at most so many bytes, or None if the repository does not have it.

        :raises RegistryError: when it cannot be had, or is larger.
        """
        data = await self._read(Blob(self.repository, digest), limit)
        if data is not None and not digest.matches(data):
            data = await self.peek(digest, limit)
            if data is None or not digest.matches(data):
                raise Unavailable(f"the blob {digest} cannot be read")
        return data

    async def referrers(self, digest: Digest) -> Sequence[tuple[str, Digest]]:
        """Return type and digest of the manifests whose subject is this one, by the API or the tag schema.

        Source: OCI distribution specification, "Listing Referrers" and "Referrers Tag Schema".

        :raises RegistryError: when the list cannot be had.
        """
        data = await self._read(Referrers(self.repository, digest), _MANIFEST_LIMIT)
        if data is None:
            data = await self.manifest(Tag(f"{digest.algorithm}-{digest.hex}"))
        return [] if data is None else _parse_referrers(data)

    async def _read(self, target: Target, limit: int) -> bytes | None:
        request = RegistryRequest(target, accept=EVERYTHING, credentials=self.request.credentials)
        try:
            return await collect((await self.registry.fetch(request)).body, limit)
        except RegistryError as error:
            if error.status == 404:
                return None
            raise


def _parse_referrers(index: bytes) -> list[tuple[str, Digest]]:
    try:
        found = json.loads(index)["manifests"]
        return [(str(each.get("artifactType") or ""), Digest.parse(each["digest"])) for each in found]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, DigestInvalid):
        return []
