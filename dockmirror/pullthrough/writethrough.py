"""Writes on their way to the upstream: what is held is what they made of it."""

from __future__ import annotations

from attrs import evolve
from zope.interface import implementer

from ..content.held import BytesContent, collect
from ..interfaces import IContent, IContents, ITags, IWrites, Kind
from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.errors import RegistryError
from ..oci.reference import Repository, Tag
from ..oci.request import Blob, Manifest
from ..oci.write import Write, Written
from .changes import Changes
from .kept import LIMIT, KeptManifests
from .lenient import LenientContents, LenientTags


@implementer(IWrites)
class WriteThrough:
    """Keeps the manifests that the upstream has taken, and forgets what is not so any more.

    Who may have what is kept is decided as ever: that somebody could push entitles nobody to pull.
    """

    def __init__(self, writes: IWrites, changes: Changes, contents: IContents, tags: ITags) -> None:
        self._writes = writes
        self._changes = changes
        self._kept = KeptManifests(LenientContents(contents))
        self._tags: ITags = LenientTags(tags)

    async def write(self, write: Write, body: IContent) -> Written:
        """See ``IWrites``."""
        match write.target:
            case Manifest() as target if write.method == "PUT":
                return await self._put(write, target, body)
            case Manifest() | Blob() as target:
                return await self._delete(write, target, body)
            case _:
                return await self._writes.write(write, body)

    async def _put(self, write: Write, target: Manifest, body: IContent) -> Written:
        data = await collect(body, LIMIT)
        sent = BytesContent(data, evolve(body.descriptor, size=len(data)))
        place, tags = self._changes.place(target.repository), set(write.tags)
        try:
            written = await self._writes.write(write, sent)
        except BaseException as error:
            if _may_be_done(error):
                await self._forget(place, tags)
            raise
        if written.status == 201:
            await self._keep(place, tags, target, sent, written)
        return written

    async def _keep(
        self, place: Repository, tags: set[Tag], target: Manifest, sent: BytesContent, written: Written
    ) -> None:
        """The manifest, where its digest is what the upstream and the client say that it is."""
        await self._changes.note(place)
        digest = target.digest or Digest.of(sent.data)
        told = dict(written.headers).get("Docker-Content-Digest", str(digest))
        kept = None
        if told == str(digest):
            descriptor = Descriptor(sent.descriptor.media_type, digest, len(sent.data))
            kept = await self._kept.keep(place, BytesContent(sent.data, descriptor))
        for tag in tags:
            if kept is None:
                await self._tags.forget(place, tag)
            else:
                await self._tags.put(place, tag, kept)

    async def _delete(self, write: Write, target: Manifest | Blob, body: IContent) -> Written:
        try:
            written = await self._writes.write(write, body)
        except BaseException as error:
            if _may_be_done(error):
                await self._deleted(target)
            raise
        await self._deleted(target)
        return written

    async def _deleted(self, target: Manifest | Blob) -> None:
        """By its tag only the tag is gone, by its digest all tags of it."""
        place = self._changes.place(target.repository)
        if isinstance(target, Blob):
            await self._changes.deleted(place, target.digest, Kind.BLOB)
        elif isinstance(target.reference, Digest):
            await self._changes.deleted(place, target.reference, Kind.MANIFEST)
        else:
            await self._forget(place, {target.reference})

    async def _forget(self, place: Repository, tags: set[Tag]) -> None:
        await self._changes.note(place)
        for tag in tags:
            await self._tags.forget(place, tag)


def _may_be_done(error: BaseException) -> bool:
    """Whether the upstream may have done it nevertheless: it has not refused, or nobody knows."""
    status = error.upstream_status if isinstance(error, RegistryError) else None
    return status is None or status == 404 or status >= 500
