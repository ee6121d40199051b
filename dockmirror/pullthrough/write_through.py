"""Writes that pass to the upstream, and what the cache stores and forgets because of them."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from typing import Protocol

from attrs import evolve, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from twisted.logger import Logger
from zope.interface import implementer

from ..body.bodies import BytesBody, collect
from ..body.consumers import ForwardingConsumer
from ..concurrency.coroutines import shield
from ..interfaces import (
    ContentKind,
    IBody,
    IContentStore,
    IStagedUpload,
    ITagStore,
    IUploadStaging,
    IWritableRegistry,
)
from ..oci.digest import Descriptor, Digest
from ..oci.errors import RegistryError
from ..oci.manifest import MANIFEST_LIMIT
from ..oci.request import Blob, Manifest, Repository, Tag
from ..oci.write import UploadSession, UploadTarget, Write, WriteResult
from .authorization import Extent, GrantCache
from .error_tolerant_store import ErrorTolerantContentStore, ErrorTolerantTagStore
from .generations import Generations, Tombstone
from .manifest_store import ManifestStore

_UPLOADS = "blobs/uploads/"
_RECEIVED_RANGE = re.compile(r"0-([0-9]{1,15})")
_log = Logger()


@implementer(IWritableRegistry)
class WriteThrough:
    """Stores the manifests that the upstream has accepted, and forgets what it has deleted.

    A write goes on if the client leaves, since it could not be taken back.  If its outcome is unknown, a
    doubt is recorded, and nothing is deleted.  A push grants no right to pull.
    """

    def __init__(
        self,
        writes: IWritableRegistry,
        generations: Generations,
        contents: IContentStore,
        tags: ITagStore,
        grants: GrantCache,
    ) -> None:
        self._writes = writes
        self._generations = generations
        self._contents: IContentStore = ErrorTolerantContentStore(contents)
        self._manifests = ManifestStore(self._contents)
        self._tags: ITagStore = ErrorTolerantTagStore(tags)
        self._grants = grants

    async def write(self, write: Write, body: IBody) -> WriteResult:
        match write.target:
            case Manifest() as target if write.method == "PUT":
                data = await collect(body, MANIFEST_LIMIT)
                digest = target.digest or Digest.of(data)
                sent = BytesBody(data, Descriptor(body.descriptor.media_type, digest, len(data)))
                return await shield(self._put(write, digest, sent))
            case Manifest() | Blob() as target:
                return await shield(self._delete(write, target, body))
            case _:
                return await self._writes.write(write, body)

    async def _put(self, write: Write, digest: Digest, sent: BytesBody) -> WriteResult:
        """Store the manifest that the upstream has accepted, and the tags that it reports.

        Other tags that the client asked for are in doubt.  So are all tags if another write ended meanwhile,
        as the order of the two at the upstream is unknown, and after a success other than 201, which does not
        say that the tags are set.
        """
        place = self._generations.store_name(write.target.repository)
        before = await self._generations.generation(place)
        mark = await self._generations.begin_write(place)
        tombstone = await self._generations.tombstone(place, digest, ContentKind.MANIFEST)
        try:
            result = await self._writes.write(write, sent)
        except BaseException as error:
            if _may_have_succeeded(error):
                await self._generations.record_doubt(place)
            raise
        is_overlapped = not await self._generations.is_last_write(place, mark)
        is_overlapped = is_overlapped or await self._generations.generation(place) != before
        generation = await self._generations.advance(place, before)
        if result.status != 201:
            await self._generations.record_doubt(place)
            return result
        stored_digest = None
        if dict(result.headers).get("Docker-Content-Digest", str(digest)) == str(digest):
            await self._generations.tombstones.lift(place, digest, ContentKind.MANIFEST, tombstone)
            stored_digest = await self._manifests.add(place, sent)
        reported = tags_set(write, result)
        await self._record_tags(place, reported, stored_digest)
        is_overlapped = is_overlapped or await self._generations.generation(place) != generation
        if (reported and is_overlapped) or reported != set(write.tags):
            await self._generations.record_doubt(place)
        return result

    async def _record_tags(self, place: Repository, tags: Iterable[Tag], digest: Digest | None) -> None:
        """Store the tags; forget them if the manifest was not stored, so that the upstream is asked."""
        for tag in tags:
            if digest is None:
                await self._tags.forget(place, tag)
            else:
                await self._tags.put(place, tag, digest)

    async def _delete(self, write: Write, target: Manifest | Blob, body: IBody) -> WriteResult:
        place = self._generations.store_name(target.repository)
        mark = await self._generations.begin_write(place)
        try:
            result = await self._writes.write(write, body)
        except BaseException as error:
            if self._confirms_deletion(write, error):
                await self._record_deletion(target)
            elif _may_have_succeeded(error):
                await self._record_doubt(target)
            raise
        await self._record_deletion(target)
        if not await self._generations.is_last_write(place, mark):
            await self._generations.record_doubt(place)
        return result

    def _confirms_deletion(self, write: Write, error: BaseException) -> bool:
        """Return whether a 404 proves that the content is gone; unauthorized clients may get one anyway."""
        if not isinstance(error, RegistryError) or error.upstream_status != 404 or write.credentials is None:
            return False
        return self._grants.is_granted(write.target.repository, write.credentials, Extent.CONTENTS)

    async def _record_deletion(self, target: Manifest | Blob) -> None:
        """Forget a deleted content: by tag only the tag, by digest all tags of it."""
        place = self._generations.store_name(target.repository)
        await self._generations.advance(place)
        if isinstance(target, Manifest) and isinstance(target.reference, Tag):
            await self._tags.forget(place, target.reference)
            return
        digest, kind = _content_of(target)
        await self._generations.tombstones.put(place, digest, kind)
        await self._contents.unlink(place, digest, kind)
        if kind is ContentKind.MANIFEST:
            await self._tags.forget_named(place, digest)

    async def _record_doubt(self, target: Manifest | Blob) -> None:
        """Record a deletion with an unknown outcome; the next request for the content asks the upstream."""
        place = self._generations.store_name(target.repository)
        await self._generations.record_doubt(place)
        if isinstance(target, Manifest) and isinstance(target.reference, Tag):
            return
        digest, kind = _content_of(target)
        stored = await self._contents.open(place, digest, kind)
        if stored is not None:
            stored.close()
            await self._generations.tombstones.put(place, digest, kind, certain=False)


def _content_of(target: Manifest | Blob) -> tuple[Digest, ContentKind]:
    assert target.digest is not None
    return target.digest, ContentKind.BLOB if isinstance(target, Blob) else ContentKind.MANIFEST


def tags_set(write: Write, result: WriteResult) -> frozenset[Tag]:
    """Return the tags that a manifest has now: the one of its path, and those that the upstream reports.

    Source: OCI distribution specification 1.2, ``OCI-Tag``; registries that do not know the parameter
    ``tag`` ignore it.
    """
    stated = [value for name, values in result.headers if name == "OCI-Tag" for value in values.split(",")]
    wanted = {str(tag): tag for tag in write.tags}
    own = write.target.reference if isinstance(write.target, Manifest) else None
    listed = (wanted.get(value.strip()) for value in stated)
    return frozenset(tag for tag in (own, *listed) if isinstance(tag, Tag))


def _may_have_succeeded(error: BaseException) -> bool:
    """Return whether the upstream may have performed the write in spite of the error."""
    status = error.upstream_status if isinstance(error, RegistryError) else None
    return status is None or status < 400 or status == 404 or status >= 500


class CopyNameSigner(Protocol):
    """Signs values that clients carry and cannot change."""

    def sign(self, repository: Repository, *values: str) -> str:
        """Return a signed text with one dot in it, valid for that repository alone."""

    def verify(self, repository: Repository, signed: str) -> tuple[str, ...]:
        """Return the signed values.

        :raises RegistryError: when the signature is invalid, or for another repository.
        """


@frozen
class _UploadCopy:
    """The copy of an upload: its secret name, which clients carry signed, and its valid length."""

    name: str
    length: int


@implementer(IWritableRegistry)
class PushCache:
    """Copies each blob on its way to the upstream, and stores it when the upstream has accepted it.

    :param signer: signs the names of copies, so that clients cannot create more copies than uploads.
    """

    def __init__(
        self,
        writes: IWritableRegistry,
        generations: Generations,
        contents: IContentStore,
        staging: IUploadStaging,
        signer: CopyNameSigner,
    ) -> None:
        self._writes = writes
        self._generations = generations
        self._contents: IContentStore = ErrorTolerantContentStore(contents)
        self._staging = staging
        self._signer = signer

    async def write(self, write: Write, body: IBody) -> WriteResult:
        match write.target:
            case UploadTarget():
                return await self._forward(write, body, _UploadCopy(secrets.token_hex(16), 0))
            case UploadSession() as target:
                upload, name = self._take_copy_name(target)
                if upload is not None:
                    return await self._forward(evolve(write, target=evolve(target, name=name)), body, upload)
        return await self._writes.write(write, body)

    async def _forward(self, write: Write, body: IBody, upload: _UploadCopy) -> WriteResult:
        empty = body.descriptor.size == 0
        tombstone = await self._tombstone(write)
        copy = None if empty else await self._staging.open(upload.name, upload.length)
        length = upload.length if empty else None
        is_over = isinstance(write.target, UploadTarget)
        try:
            result = await self._writes.write(write, body if copy is None else _CopyingBody(body, copy))
            is_over = write.method == "DELETE"
        except RegistryError as error:
            error.location = self._add_copy_name(write, error.location, _confirm_length(upload, error.range))
            is_over = is_over or error.status == 404
            raise
        finally:
            if copy is not None:
                length = await copy.finish()
            if is_over:
                await self._staging.drop(upload.name)
        if result.status == 201:
            await self._record_accepted(write, upload, length, tombstone)
        return evolve(result, location=self._next_location(write, result, upload, length))

    def _next_location(
        self, write: Write, result: WriteResult, upload: _UploadCopy, length: int | None
    ) -> str | None:
        """Return the location at which the upload continues, with the copy's name if the copy is usable."""
        if write.method in ("GET", "HEAD"):
            upload = _confirm_length(upload, dict(result.headers).get("Range"))
        elif result.status != 307:  # for which the client repeats the same request
            if length is None:
                return result.location
            upload = evolve(upload, length=length)
        return self._add_copy_name(write, result.location, upload)

    def _add_copy_name(self, write: Write, location: str | None, upload: _UploadCopy) -> str | None:
        """Return the location of an upload with the signed name of its copy."""
        if location is None or not location.startswith(_UPLOADS):
            return location
        signed = self._signer.sign(write.target.repository, upload.name, str(upload.length))
        return f"{_UPLOADS}{signed}.{location.removeprefix(_UPLOADS)}"

    def _take_copy_name(self, target: UploadSession) -> tuple[_UploadCopy | None, str]:
        """Return the copy that an upload's name contains, and the upstream's own name of the upload."""
        *signed, name = target.name.split(".", 2)
        try:
            copy, length = self._signer.verify(target.repository, ".".join(signed))
        except RegistryError:
            return None, target.name
        return _UploadCopy(copy, int(length)), name

    async def _tombstone(self, write: Write) -> Tombstone | None:
        """Return the tombstone of the blob that this write completes."""
        if write.digest is None:
            return None
        place = self._generations.store_name(write.target.repository)
        return await self._generations.tombstone(place, write.digest, ContentKind.BLOB)

    async def _record_accepted(
        self, write: Write, upload: _UploadCopy, length: int | None, tombstone: Tombstone | None
    ) -> None:
        """Link the blob that the upstream has accepted; verify and store the copy if it is not stored yet.

        The client does not wait for that.  A deletion that came after the write had begun stays in force.
        """
        digest, place = write.digest, self._generations.store_name(write.target.repository)
        if digest is None:
            return
        await self._generations.tombstones.lift(place, digest, ContentKind.BLOB, tombstone)
        if await self._contents.link(place, digest, ContentKind.BLOB):
            await self._staging.drop(upload.name)
        elif length:
            commit = Deferred.fromCoroutine(self._commit(upload.name, place, digest))
            commit.addErrback(lambda failure: _log.failure("a pushed blob is not stored", failure=failure))

    async def _commit(self, name: str, place: Repository, digest: Digest) -> None:
        if await self._staging.commit(name, digest):
            await self._contents.link(place, digest, ContentKind.BLOB)


def _confirm_length(upload: _UploadCopy, received_range: str | None) -> _UploadCopy:
    """Return the copy with the length that the upstream reports to have; ``0-0`` means none."""
    match = _RECEIVED_RANGE.fullmatch((received_range or "").removeprefix("bytes="))
    return evolve(upload, length=int(match[1]) + 1 if match and int(match[1]) else 0)


@implementer(IBody)
class _CopyingBody:
    """A body that is also written to a copy while it is delivered."""

    def __init__(self, body: IBody, copy: IStagedUpload) -> None:
        self.descriptor = body.descriptor
        self._body = body
        self._copy = copy

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        return self._body.deliver(_CopyingConsumer(consumer, self._copy))

    def discard(self) -> None:
        self._body.discard()


class _CopyingConsumer(ForwardingConsumer):
    def __init__(self, consumer: IConsumer, copy: IStagedUpload) -> None:
        super().__init__(consumer)
        self._copy = copy

    def write(self, data: bytes) -> None:
        self._copy.write(data)
        super().write(data)
