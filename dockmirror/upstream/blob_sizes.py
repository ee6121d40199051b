"""How long blobs are, as the manifests say that have passed."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from ..concurrency.ttl_cache import TTLCache
from ..oci.digest import Digest
from ..oci.manifest import ManifestDocument
from ..oci.reference import Repository

DEFAULT_LIMIT = 16 * 1024 * 1024 * 1024
"""Bytes of a blob whose length neither its manifest nor the upstream has told."""
_HOLDS = 3600.0
_MOST = 10_000


class BlobSizes:
    """What bounds a blob whose length the upstream does not tell.

    A manifest says it for its own repository only: who writes one there does not decide for others.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._sizes: TTLCache[tuple[Repository, Digest], int] = TTLCache(clock, _MOST)

    def learn(self, repository: Repository, manifest: bytes) -> None:
        """Remembers them for an hour; what is no manifest says nothing."""
        read = ManifestDocument.parse(manifest)
        for blob in read.blobs if read else ():
            if blob.digest is not None and blob.size is not None and blob.size >= 0:
                self._sizes.put((repository, blob.digest), blob.size, _HOLDS)

    def most(self, repository: Repository, digest: Digest) -> int:
        """So many bytes it has at most."""
        size = self._sizes.get((repository, digest))
        return DEFAULT_LIMIT if size is None else size
