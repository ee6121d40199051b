"""Documents of one registry, which are stored under the name of an upstream."""

from __future__ import annotations

from zope.interface import implementer

from ..interfaces import IDocumentStore

_MARK = b"\nregistry "


@implementer(IDocumentStore)
class RegistryDocuments:
    """The documents of one registry; those of another one of the same name are not read.

    An upstream of that name may be another registry on a mirror that shares the bucket, or have been another
    one before the settings were changed: what is public there may be private here.  A document without a mark
    was written before there were any.
    """

    def __init__(self, documents: IDocumentStore, registry: str) -> None:
        self._documents = documents
        self._registry = registry.encode()

    async def read(self, name: str) -> bytes | None:
        stored = await self._documents.read(name)
        data, mark, registry = (stored or b"").rpartition(_MARK)
        if not mark:
            return stored
        return data if registry == self._registry else None

    async def write(self, name: str, data: bytes) -> None:
        await self._documents.write(name, data + _MARK + self._registry)
