"""A cache of the references of manifests that were read lately."""

from __future__ import annotations

from collections import OrderedDict

from ..oci.digest import Digest
from ..oci.media import ManifestReferences, parse_references

_LIMIT = 16 * 1024


class ReferenceCache:
    """The parts of verified manifests, which are the same for a digest for ever.

    :param limit: how many parts are remembered, of all manifests together.
    """

    def __init__(self, limit: int = _LIMIT) -> None:
        self._limit = limit
        self._count = 0
        self._known: OrderedDict[Digest, ManifestReferences] = OrderedDict()

    def of(self, digest: Digest, manifest: bytes) -> ManifestReferences | None:
        """See ``parse_references``; the bytes are those of the digest."""
        parts = self._known.get(digest)
        if parts is not None:
            self._known.move_to_end(digest)
            return parts
        parts = parse_references(manifest)
        if parts is not None:
            self._remember(digest, parts)
        return parts

    def _remember(self, digest: Digest, parts: ManifestReferences) -> None:
        self._known[digest] = parts
        self._count += _count(parts)
        while self._count > self._limit:
            _, oldest = self._known.popitem(last=False)
            self._count -= _count(oldest)


def _count(parts: ManifestReferences) -> int:
    return 1 + len(parts.blobs) + len(parts.manifests)
