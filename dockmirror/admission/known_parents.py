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
    :ivar recent: the parents of recent images, in case that no document can be written.
    """

    registry: str
    documents: IDocumentStore
    recorded: TTLCache[tuple[Repository, Digest], bool]
    recent: TTLCache[str, list[Parent]]

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
        """Return the indexes that list the subject; a client that accepts none is given it by a tag, too."""
        if subject.digest is None:
            return []
        return await self._read(self._name(subject.repository, subject.digest))

    async def _add(self, name: str, parent: Parent) -> None:
        known = await self._read(name)
        if parent not in known:
            known = [*known[-_MOST + 1 :], parent]
            await self.documents.write(name, _write(known))
        self.recent.put(name, known, _RECORDED)

    async def _read(self, name: str) -> list[Parent]:
        return _parse(await self.documents.read(name)) or self.recent.get(name) or []

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
