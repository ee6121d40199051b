"""Blobs that are pushed, kept while they pass: the next pull of them does not leave the building."""

from __future__ import annotations

import re
import secrets
from typing import Protocol

from attrs import evolve, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from twisted.logger import Logger
from zope.interface import implementer

from ..body.consumers import ForwardingConsumer
from ..interfaces import ContentKind, IBody, IContentStore, IStagedUpload, IUploadStaging, IWritableRegistry
from ..oci.digest import Digest
from ..oci.errors import RegistryError
from ..oci.reference import Repository
from ..oci.write import UploadSession, UploadTarget, Write, WriteResult
from .error_tolerant_store import ErrorTolerantContentStore
from .generations import Generations, Tombstone

_UPLOADS = "blobs/uploads/"
_COME = re.compile(r"0-([0-9]{1,15})")

_log = Logger()


class CopyNameSigner(Protocol):
    """Makes texts that clients carry and cannot change."""

    def sign(self, repository: Repository, *values: str) -> str:
        """Return a text with one dot in it that stands for the values, for that repository alone."""

    def verify(self, repository: Repository, sealed: str) -> tuple[str, ...]:
        """Return what was sealed.

        :raises RegistryError: when it was not, or for something else.
        """


@frozen
class _UploadCopy:
    """The copy of an upload, by the name that clients carry, and how much of it is right so far."""

    name: str
    length: int

    @classmethod
    def new(cls) -> _UploadCopy:
        return cls(secrets.token_hex(16), 0)


@implementer(IWritableRegistry)
class PushCache:
    """Copies each blob while it goes to the upstream; it is held when the upstream has accepted it.

    :param seal: of the names of copies: nobody can make up another, and so have more copies than uploads.
    """

    def __init__(
        self,
        writes: IWritableRegistry,
        changes: Generations,
        contents: IContentStore,
        pushed: IUploadStaging,
        seal: CopyNameSigner,
    ) -> None:
        self._writes = writes
        self._changes = changes
        self._contents: IContentStore = ErrorTolerantContentStore(contents)
        self._pushed = pushed
        self._seal = seal

    async def write(self, write: Write, body: IBody) -> WriteResult:
        """See ``IWritableRegistry``."""
        match write.target:
            case UploadTarget():
                return await self._written(write, body, _UploadCopy.new())
            case UploadSession() as target:
                copied, name = self._unsealed(target)
                if copied is not None:
                    return await self._written(evolve(write, target=evolve(target, name=name)), body, copied)
        return await self._writes.write(write, body)

    async def _written(self, write: Write, body: IBody, copied: _UploadCopy) -> WriteResult:
        empty = body.descriptor.size == 0
        deletion = await self._deletion(write)
        copy = None if empty else await self._pushed.open(copied.name, copied.length)
        length = copied.length if empty else None
        over = isinstance(write.target, UploadTarget)
        try:
            written = await self._writes.write(write, body if copy is None else _CopyingBody(body, copy))
            over = write.method == "DELETE"
        except RegistryError as error:
            error.location = self._sealed(write, error.location, _come(copied, error.range))
            over = over or error.status == 404
            raise
        finally:
            if copy is not None:
                length = await copy.finish()
            if over:
                await self._pushed.drop(copied.name)
        if written.status == 201:
            await self._accepted(write, copied, length, deletion)
        return evolve(written, location=self._goes_on(write, written, copied, length))

    def _goes_on(
        self, write: Write, written: WriteResult, copied: _UploadCopy, length: int | None
    ) -> str | None:
        """Return where the upload continues; the location names the copy if it is still usable."""
        if write.method in ("GET", "HEAD"):
            copied = _come(copied, dict(written.headers).get("Range"))
        elif written.status != 307:  # which has the same sent once more
            if length is None:
                return written.location
            copied = evolve(copied, length=length)
        return self._sealed(write, written.location, copied)

    def _sealed(self, write: Write, location: str | None, copied: _UploadCopy) -> str | None:
        """Return the location of an upload with its copy in it."""
        if location is None or not location.startswith(_UPLOADS):
            return location
        sealed = self._seal.sign(write.target.repository, copied.name, str(copied.length))
        return f"{_UPLOADS}{sealed}.{location.removeprefix(_UPLOADS)}"

    def _unsealed(self, target: UploadSession) -> tuple[_UploadCopy | None, str]:
        """Return the copy that goes with an upload, and the upload's own name."""
        *sealed, name = target.name.split(".", 2)
        try:
            copy, length = self._seal.verify(target.repository, ".".join(sealed))
        except RegistryError:
            return None, target.name
        return _UploadCopy(copy, int(length)), name

    async def _deletion(self, write: Write) -> Tombstone | None:
        """Return the deletion that stands of the blob that this completes."""
        if write.digest is None:
            return None
        place = self._changes.place(write.target.repository)
        return await self._changes.deletion(place, write.digest, ContentKind.BLOB)

    async def _accepted(
        self, write: Write, copied: _UploadCopy, length: int | None, deletion: Tombstone | None
    ) -> None:
        """The upstream has the blob: what is held already is linked, what was copied is looked at first.

        Nobody waits for that.  Where the blob was deleted after this had begun the deletion stands.
        """
        digest, place = write.digest, self._changes.place(write.target.repository)
        if digest is None:
            return
        await self._changes.deletions.lift(place, digest, ContentKind.BLOB, deletion)
        if await self._contents.link(place, digest, ContentKind.BLOB):
            await self._pushed.drop(copied.name)
        elif length:
            keeping = Deferred.fromCoroutine(self._keep(copied.name, place, digest))
            keeping.addErrback(lambda failure: _log.failure("a push is not kept", failure=failure))

    async def _keep(self, name: str, place: Repository, digest: Digest) -> None:
        if await self._pushed.commit(name, digest):
            await self._contents.link(place, digest, ContentKind.BLOB)


def _come(copied: _UploadCopy, told: str | None) -> _UploadCopy:
    """The copy, of which the upstream has as much as it tells: ``0-0`` is nothing."""
    come = _COME.fullmatch((told or "").removeprefix("bytes="))
    return evolve(copied, length=int(come[1]) + 1 if come and int(come[1]) else 0)


@implementer(IBody)
class _CopyingBody:
    """Passes a content on, and has each piece written beside."""

    def __init__(self, content: IBody, copy: IStagedUpload) -> None:
        self.descriptor = content.descriptor
        self._content = content
        self._copy = copy

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        return self._content.deliver(_CopyingConsumer(consumer, self._copy))

    def discard(self) -> None:
        self._content.discard()


class _CopyingConsumer(ForwardingConsumer):
    def __init__(self, consumer: IConsumer, copy: IStagedUpload) -> None:
        super().__init__(consumer)
        self._copy = copy

    def write(self, data: bytes) -> None:
        self._copy.write(data)
        super().write(data)
