"""Parts of a blob of several blocks: an upstream that serves them, and readers in several processes."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import implementer

from dockmirror.interfaces import Answer, IPartSource
from dockmirror.oci.consent import HeldBlob
from dockmirror.oci.digest import Descriptor
from dockmirror.oci.errors import RangeInvalid, Unreachable
from dockmirror.oci.header_fields import ContentRange, Span
from dockmirror.oci.request import Repository
from dockmirror.store import layout
from dockmirror.store.downloads.block_waiter import POLL

from ...answering import Feed
from ..downloads.upstream import BUSYBOX, REGISTRY, Client, Mirror, Source, open_files

MEBIBYTE = 1024 * 1024
BLOCKS = 20
BLOB = os.urandom(BLOCKS * MEBIBYTE - MEBIBYTE // 2)
END = len(BLOB)
PIECE = 300_000


class PartBody(Feed):
    """A part that is sent piece by piece."""

    def __init__(self, upstream: PartUpstream, first: int, last: int) -> None:
        super().__init__(Descriptor("application/octet-stream", None, last - first + 1))
        self.first = self.position = first
        self.last = last
        self._upstream, self._data = upstream, upstream.data

    @property
    def over(self) -> bool:
        return self.state != "open"

    def advance(self, count: int | None = None) -> PartBody:
        """Send so many bytes more, or all, as long as they are taken."""
        end = self.last + 1 if count is None else min(self.last + 1, self.position + count)
        while self.position < end and not self.over and not self.paused:
            piece = self._data[self.position : min(end, self.position + PIECE)]
            self.position += len(piece)
            self._upstream.sent += len(piece)
            self.send(piece)
        return self

    def finish(self) -> None:
        """Send the rest, and end if all of it is taken."""
        self.advance()
        if self.position > self.last:
            self.end()


class PartUpstream:
    """An upstream with one blob.

    :ivar requests: the parts that were asked for, as first and last offset.
    :ivar bodies: the bodies, in the order of the requests.
    :ivar sent: the number of bytes that left it.
    :ivar etag: its entity tag; None if it sends none.
    :ivar size: the size of the blob as it reports it.
    :ivar ranges: it serves ranges; otherwise parts are cut out of the whole blob.
    :ivar opening: it answers when this fires.
    """

    def __init__(self, data: bytes = BLOB) -> None:
        self.data = data
        self.requests: list[tuple[int, int]] = []
        self.bodies: list[PartBody] = []
        self.sent = self.checks = 0
        self.etag: str | None = '"one"'
        self.size: int | None = len(data)
        self.ranges = True
        self.down = False
        self.opening: Deferred[None] | None = None

    @property
    def running(self) -> list[PartBody]:
        """The bodies that can go on."""
        return [body for body in self.bodies if not body.over]

    def finish(self) -> None:
        """Send the rest of all that was requested."""
        for body in self.running:
            body.finish()

    async def open(self, offset: int) -> Answer:
        return await self.open_part(offset, len(self.data) - 1)

    async def open_part(self, first: int, last: int) -> Answer:
        self.requests.append((first, last))
        if self.opening is not None:
            await self.opening
        if self.down:
            raise Unreachable("the upstream is down")
        if first >= len(self.data):
            raise RangeInvalid(content_size=len(self.data))
        part = ContentRange(first, min(last, len(self.data) - 1), self.size)
        self.bodies.append(PartBody(self, part.first, part.last))
        headers = () if self.etag is None else (("ETag", self.etag),)
        status = 206 if self.ranges else 200
        return Answer(self.bodies[-1], 206, part, headers=headers, upstream_status=status)


@implementer(IPartSource)
class PartSource(Source):
    """One reader's source of parts.

    :ivar held: the blob that was checked last.
    :ivar checking: checks are answered when this fires.
    """

    held: HeldBlob | None = None
    checking: Deferred[None] | None = None
    _upstream: PartUpstream

    async def open(self, offset: int) -> Answer:
        self._refuse()
        return await self._upstream.open_part(offset, len(self._upstream.data) - 1)

    async def open_part(self, first: int, last: int) -> Answer:
        self._refuse()
        return await self._upstream.open_part(first, last)

    async def check(self, held: HeldBlob) -> None:
        self.held = held
        if self.checking is not None:
            await self.checking
        await super().check(held)


class BlobRead:
    """One reader of a blob, from its request on.

    :ivar part: None until the client is admitted.
    :ivar is_relayed: it was told to fetch the part by itself.
    :ivar cancel: takes the request back.
    """

    cancel: Callable[[], None]

    def __init__(self, mirror: PartMirror, client: Client) -> None:
        self.client = client
        self.part: ContentRange | None = None
        self._error: BaseException | None = None
        self.is_relayed = False
        self._mirror = mirror

    @property
    def error(self) -> BaseException | None:
        """The refusal."""
        return self._error

    @property
    def data(self) -> bytes:
        return self.client.data

    @property
    def outcome(self) -> object:
        return self.client.outcome

    @property
    def wanted(self) -> bytes:
        """The bytes of the part."""
        assert self.part is not None, self.error
        return self._mirror.data[self.part.first : self.part.last + 1]

    def leave(self) -> None:
        if self.part is None:
            self.cancel()
        else:
            self.client.leave()


class PartRead(BlobRead):
    """One reader of a part."""

    def __init__(self, mirror: PartMirror, span: Span, source: IPartSource, client: Client) -> None:
        super().__init__(mirror, client)
        joining = Deferred.fromCoroutine(
            mirror.downloads.read_part(REGISTRY, mirror.repository, mirror.digest, span, source)
        )
        self.cancel = joining.cancel
        joining.addCallback(self._read)
        joining.addErrback(lambda failure: setattr(self, "_error", failure.value))

    def _read(self, answer: Answer | None) -> None:
        if answer is None:
            self.is_relayed = True
            return
        self.part = part = answer.content_range
        assert (answer.status, part is None) == (206, False)
        assert answer.body.descriptor == evolve(self._mirror.descriptor, size=part.length if part else 0)
        self.client.deliver(answer.body)


class PartMirror(Mirror):
    """One process's downloads, of which parts are read."""

    def __init__(self, root: Path, data: bytes = BLOB, opened: dict[int, Mirror] | None = None) -> None:
        super().__init__(root, data, opened=opened)
        self.data = data
        self.repository: Repository = BUSYBOX

    @property
    def blocks(self) -> Path:
        return self.root / layout.growing_blocks(REGISTRY, self.digest)

    def read_part(
        self,
        source: IPartSource,
        first: int | None,
        last: int | None = None,
        suffix: int | None = None,
        kind: Callable[[], Client] = Client,
    ) -> PartRead:
        return PartRead(self, Span(first, last, suffix), source, kind())

    def kill(self) -> None:
        super().kill()
        for file, path in open_files(self.root):
            if self._opened[file] is self and path.endswith(layout.BLOCKS):
                unlock(file)


def unlock(file: int) -> None:
    """Drop all locks of an open file of blocks."""
    import struct

    fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_UNLCK, os.SEEK_SET, 0, 0, 0))


def set_back(clock: Clock, seconds: float) -> None:
    """Set a clock back, and its timers with it, as ``ClockStepGuard`` does."""
    left = [(timer, timer.getTime() - clock.seconds()) for timer in clock.getDelayedCalls()]
    clock.rightNow -= seconds
    for timer, until in left:
        timer.reset(until)


def settle(upstream: PartUpstream, *mirrors: Mirror, times: int = 30) -> None:
    """Send all that is requested, and let the processes take it."""
    for _ in range(times):
        upstream.finish()
        for mirror in mirrors:
            mirror.turn(POLL)
