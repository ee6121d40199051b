"""Blobs that are pushed, kept while they pass: the next pull of them does not leave the building."""

from __future__ import annotations

import re
import secrets

from attrs import evolve, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from twisted.logger import Logger
from zope.interface import implementer

from ..content.onward import Onward
from ..interfaces import IContent, IContents, ICopy, IPushed, IWrites, Kind
from ..oci.digest import Digest
from ..oci.errors import RegistryError
from ..oci.reference import Repository
from ..oci.write import Upload, Uploads, Write, Written
from .changes import Changes
from .lenient import LenientContents

_UPLOADS = "blobs/uploads/"
_NAMED = re.compile(r"([0-9a-f]{32})-([0-9]{1,15})\.(.+)")
_COME = re.compile(r"0-([0-9]{1,15})")

_log = Logger()


@frozen
class _Copied:
    """The copy of an upload, by the name that clients carry, and how much of it is right so far.

    Whoever makes up another name harms nobody: of others' names nobody knows, and only what has the digest
    that the upstream has accepted is kept.
    """

    name: str
    length: int

    @classmethod
    def new(cls) -> _Copied:
        return cls(secrets.token_hex(16), 0)

    def named(self, location: str | None) -> str | None:
        """The same location, with this in it."""
        if location is None or not location.startswith(_UPLOADS):
            return location
        return f"{_UPLOADS}{self.name}-{self.length}.{location.removeprefix(_UPLOADS)}"


@implementer(IWrites)
class PushedBlobs:
    """Copies each blob while it goes to the upstream; it is held when the upstream has accepted it."""

    def __init__(self, writes: IWrites, changes: Changes, contents: IContents, pushed: IPushed) -> None:
        self._writes = writes
        self._changes = changes
        self._contents: IContents = LenientContents(contents)
        self._pushed = pushed

    async def write(self, write: Write, body: IContent) -> Written:
        """See ``IWrites``."""
        match write.target:
            case Uploads():
                return await self._written(write, body, _Copied.new())
            case Upload() as target:
                named = _NAMED.fullmatch(target.name)
                if named is not None:
                    asked = evolve(write, target=evolve(target, name=named[3]))
                    return await self._written(asked, body, _Copied(named[1], int(named[2])))
        return await self._writes.write(write, body)

    async def _written(self, write: Write, body: IContent, copied: _Copied) -> Written:
        empty = body.descriptor.size == 0
        copy = None if empty else await self._pushed.copy(copied.name, copied.length)
        length = copied.length if empty else None
        over = isinstance(write.target, Uploads)
        try:
            written = await self._writes.write(write, body if copy is None else _Copying(body, copy))
            over = write.method == "DELETE"
        except RegistryError as error:
            error.location = _come(copied, error.range).named(error.location)
            over = over or error.status == 404
            raise
        finally:
            if copy is not None:
                length = await copy.end()
            if over:
                await self._pushed.drop(copied.name)
        if written.status == 201:
            await self._accepted(write, copied, length)
        return evolve(written, location=self._goes_on(write, written, copied, length))

    def _goes_on(self, write: Write, written: Written, copied: _Copied, length: int | None) -> str | None:
        """Where the client goes on, with what has been copied by then; without, where that is of no use."""
        if write.method in ("GET", "HEAD"):
            return _come(copied, dict(written.headers).get("Range")).named(written.location)
        if written.status == 307:  # the same once more
            return copied.named(written.location)
        return written.location if length is None else evolve(copied, length=length).named(written.location)

    async def _accepted(self, write: Write, copied: _Copied, length: int | None) -> None:
        """The upstream has the blob: what is held already is linked, what was copied is looked at first.

        Nobody waits for that.
        """
        digest, place = write.digest, self._changes.place(write.target.repository)
        if digest is None:
            return
        if await self._contents.link(place, digest, Kind.BLOB):
            await self._pushed.drop(copied.name)
        elif length:
            keeping = Deferred.fromCoroutine(self._keep(copied.name, place, digest))
            keeping.addErrback(lambda failure: _log.failure("a push is not kept", failure=failure))

    async def _keep(self, name: str, place: Repository, digest: Digest) -> None:
        if await self._pushed.keep(name, digest):
            await self._contents.link(place, digest, Kind.BLOB)


def _come(copied: _Copied, told: str | None) -> _Copied:
    """The copy, of which the upstream has as much as it tells: ``0-0`` is nothing."""
    come = _COME.fullmatch((told or "").removeprefix("bytes="))
    return evolve(copied, length=int(come[1]) + 1 if come and int(come[1]) else 0)


@implementer(IContent)
class _Copying:
    """Passes a content on, and has each piece written beside."""

    def __init__(self, content: IContent, copy: ICopy) -> None:
        self.descriptor = content.descriptor
        self._content = content
        self._copy = copy

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        return self._content.deliver(_Beside(consumer, self._copy))

    def discard(self) -> None:
        self._content.discard()


class _Beside(Onward):
    def __init__(self, consumer: IConsumer, copy: ICopy) -> None:
        super().__init__(consumer)
        self._copy = copy

    def write(self, data: bytes) -> None:
        self._copy.write(data)
        super().write(data)
