"""Writes on their way to the upstream: what is held is what they made of it."""

from __future__ import annotations

from collections.abc import Iterable

from zope.interface import implementer

from ..body.in_memory import BytesBody, collect
from ..interfaces import ContentKind, IBody, IContentStore, ITagStore, IWritableRegistry
from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.errors import RegistryError
from ..oci.reference import Repository, Tag
from ..oci.request import Blob, Manifest
from ..oci.write import Write, WriteResult
from .error_tolerant_store import ErrorTolerantContentStore, ErrorTolerantTagStore
from .generations import Generations
from .grants import Extent, GrantCache
from .manifest_store import LIMIT, ManifestStore


@implementer(IWritableRegistry)
class WriteThrough:
    """Keeps the manifests that the upstream has taken, and forgets what it has said to be deleted.

    What nobody knows is asked about, and nothing is taken away for it.  Who may have what is kept is decided
    as ever: that somebody could push entitles nobody to pull.
    """

    def __init__(
        self,
        writes: IWritableRegistry,
        changes: Generations,
        contents: IContentStore,
        tags: ITagStore,
        grants: GrantCache,
    ) -> None:
        self._writes = writes
        self._changes = changes
        self._contents: IContentStore = ErrorTolerantContentStore(contents)
        self._kept = ManifestStore(self._contents)
        self._tags: ITagStore = ErrorTolerantTagStore(tags)
        self._grants = grants

    async def write(self, write: Write, body: IBody) -> WriteResult:
        """See ``IWritableRegistry``."""
        match write.target:
            case Manifest() as target if write.method == "PUT":
                return await self._put(write, target, body)
            case Manifest() | Blob() as target:
                return await self._delete(write, target, body)
            case _:
                return await self._writes.write(write, body)

    async def _put(self, write: Write, target: Manifest, body: IBody) -> WriteResult:
        """Keep the manifest that the upstream has taken, and note the tags that it says to have set.

        Of further tags that the client wanted nothing is known.  Where another write has ended meanwhile,
        nobody knows which of both the upstream has done last.
        """
        data = await collect(body, LIMIT)
        digest = target.digest or Digest.of(data)
        sent = BytesBody(data, Descriptor(body.descriptor.media_type, digest, len(data)))
        place = self._changes.place(target.repository)
        before = await self._changes.generation(place)
        deletion = await self._changes.deletion(place, digest, ContentKind.MANIFEST)
        try:
            written = await self._writes.write(write, sent)
        except BaseException as error:
            if _is_unknown(error):
                await self._changes.doubt(place)
            raise
        if written.status == 201:
            overlapped = await self._changes.generation(place) != before
            mark = await self._changes.note(place)
            if dict(written.headers).get("Docker-Content-Digest", str(digest)) == str(digest):
                await self._changes.deletions.lift(place, digest, ContentKind.MANIFEST, deletion)
                kept = await self._kept.keep(place, sent)
            else:
                kept = None
            named = _named(write, written)
            await self._tag(place, named, kept)
            overlapped = overlapped or await self._changes.generation(place) != mark
            if (named and overlapped) or named != set(write.tags):
                await self._changes.doubt(place)
        return written

    async def _tag(self, place: Repository, tags: Iterable[Tag], kept: Digest | None) -> None:
        """Note what the upstream has tagged; without the manifest the tags are asked for."""
        for tag in tags:
            if kept is None:
                await self._tags.forget(place, tag)
            else:
                await self._tags.put(place, tag, kept)

    async def _delete(self, write: Write, target: Manifest | Blob, body: IBody) -> WriteResult:
        try:
            written = await self._writes.write(write, body)
        except BaseException as error:
            if self._says_that_it_is_gone(write, error):
                await self._deleted(target)
            elif _is_unknown(error):
                await self._doubted(target)
            raise
        await self._deleted(target)
        return written

    def _says_that_it_is_gone(self, write: Write, error: BaseException) -> bool:
        """To those who may have it: to others an upstream may hide what it has."""
        if not isinstance(error, RegistryError) or error.upstream_status != 404 or write.credentials is None:
            return False
        return self._grants.granted(write.target.repository, write.credentials, Extent.CONTENTS)

    async def _deleted(self, target: Manifest | Blob) -> None:
        """By its tag only the tag is gone, by its digest all tags of it."""
        place = self._changes.place(target.repository)
        await self._changes.note(place)
        if isinstance(target, Manifest) and isinstance(target.reference, Tag):
            await self._tags.forget(place, target.reference)
            return
        digest, kind = _content(target)
        await self._changes.deletions.record(place, digest, kind)
        await self._contents.unlink(place, digest, kind)
        if kind is ContentKind.MANIFEST:
            await self._tags.forget_named(place, digest)

    async def _doubted(self, target: Manifest | Blob) -> None:
        """Nobody knows whether it is gone: of what is held, whoever asks for it next finds out."""
        place = self._changes.place(target.repository)
        await self._changes.doubt(place)
        if isinstance(target, Manifest) and isinstance(target.reference, Tag):
            return
        digest, kind = _content(target)
        opened = await self._contents.open(place, digest, kind)
        if opened is not None:
            opened.close()
            await self._changes.deletions.record(place, digest, kind, certain=False)


def _content(target: Manifest | Blob) -> tuple[Digest, ContentKind]:
    assert target.digest is not None
    return target.digest, ContentKind.BLOB if isinstance(target, Blob) else ContentKind.MANIFEST


def _named(write: Write, written: WriteResult) -> frozenset[Tag]:
    """Return the tags that a manifest has now: its path's own, and those that the upstream says it has set.

    Source: OCI distribution specification 1.2, ``OCI-Tag``; registries that do not know the parameter
    ``tag`` ignore it.
    """
    told = [value for name, values in written.headers if name == "OCI-Tag" for value in values.split(",")]
    wanted = {str(tag): tag for tag in write.tags}
    own = write.target.reference if isinstance(write.target, Manifest) else None
    listed = (wanted.get(value.strip()) for value in told)
    return frozenset(tag for tag in (own, *listed) if isinstance(tag, Tag))


def _is_unknown(error: BaseException) -> bool:
    """Return whether the upstream may have performed the write in spite of the error."""
    status = error.upstream_status if isinstance(error, RegistryError) else None
    return status is None or status == 404 or status >= 500
