"""The indexes that list an image: a client that was given an index asks for its images by digest."""

from __future__ import annotations

import json

from attrs import frozen

from ..concurrency.caching import TTLCache
from ..interfaces import IDocumentStore
from ..oci.digest import Digest
from ..oci.errors import DigestInvalid
from ..oci.manifest import ManifestDocument, Platform
from ..oci.reference import Repository
from .verdict import Subject

_MOST = 16
"""The most indexes that are remembered for one image, the newest ones."""
_RECORDED = 3600.0


@frozen
class Parent:
    """An index, and the platform for which it lists the image."""

    digest: Digest
    platform: Platform | None = None


@frozen
class KnownParents:
    """Remembers which images an index lists, for all processes of the cache and across restarts.

    :ivar registry: the registry's name in the store.
    """

    registry: str
    documents: IDocumentStore
    recorded: TTLCache[tuple[Repository, Digest], bool]

    async def record(self, subject: Subject, index: ManifestDocument | None) -> None:
        """Remember the images of an index, before it is served; nothing for another manifest.

        :raises OSError: when it cannot be written.
        """
        digest = subject.digest
        if index is None or digest is None or not index.children:
            return
        if self.recorded.get((subject.repository, digest)):
            return
        for child in index.children:
            if child.descriptor.digest is not None:
                parent = Parent(digest, child.platform)
                await self._add(self._name(subject.repository, child.descriptor.digest), parent)
        self.recorded.put((subject.repository, digest), True, _RECORDED)

    async def find(self, subject: Subject) -> list[Parent]:
        """Return the indexes that list the subject; none if it was requested by a tag."""
        if subject.digest is None or subject.reference != subject.digest:
            return []
        return _parse(await self.documents.read(self._name(subject.repository, subject.digest)))

    async def _add(self, name: str, parent: Parent) -> None:
        known = _parse(await self.documents.read(name))
        if parent not in known:
            await self.documents.write(name, _write([*known[-_MOST + 1 :], parent]))

    def _name(self, repository: Repository, digest: Digest) -> str:
        return f"parents/{self.registry}/{repository}/{digest.algorithm}/{digest.hex}"


def _write(parents: list[Parent]) -> bytes:
    return json.dumps([[str(each.digest), str(each.platform or "")] for each in parents]).encode()


def _parse(document: bytes | None) -> list[Parent]:
    try:
        found = json.loads(document or b"[]")
        return [Parent(Digest.parse(each), Platform.parse(text) if text else None) for each, text in found]
    except (ValueError, TypeError, DigestInvalid):
        return []
