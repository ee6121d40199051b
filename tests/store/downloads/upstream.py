"""An upstream that does what the test says, sources and clients of it, and processes that download."""

from __future__ import annotations

import fcntl
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IProducer, IPushProducer
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from dockmirror.interfaces import (
    Answer,
    ContentKind,
    IBody,
    IContentStore,
    IDownloadReader,
    IFileConsumer,
    ISource,
    IStoredContent,
)
from dockmirror.oci.consent import HeldBlob
from dockmirror.oci.descriptor import Descriptor
from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import RangeInvalid, RegistryError, Unreachable
from dockmirror.oci.ranges import ContentRange
from dockmirror.oci.reference import Repository
from dockmirror.store.downloads.context import DownloadContext
from dockmirror.store.downloads.downloads import Downloads

T = TypeVar("T")
PIECE = 50_000
REGISTRY = "docker.io"
BUSYBOX = Repository("docker.io/library/busybox")
ALPINE = Repository("docker.io/library/alpine")
DATA = os.urandom(1000 * 1000)
WRONG = os.urandom(1000 * 1000)
SPOILT = DATA[:-1] + bytes([DATA[-1] ^ 1])
SIZE = len(DATA)
HALF = SIZE // 2
DESCRIPTOR = Descriptor("application/octet-stream", Digest.of(DATA), SIZE)


class Upstream:
    """An upstream with one blob, which sends of it what the test says.

    :ivar opens: the offsets that were asked for.
    :ivar checks: how often it was asked whether it would.
    :ivar sent: how many bytes left it.
    :ivar bodies: what was begun, in order.
    :ivar size: what it says of the blob's size.
    :ivar rest_size: what it says of it when it is asked for a range; None where it is the same.
    :ivar down: whether it gives no answer.
    :ivar ranges: whether it answers a range with one; else with the whole.
    :ivar shift: by how much the ranges that it sends are not those asked for.
    :ivar unsatisfied: whether it answers a range with 416.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size: int | None = len(data)
        self.opens: list[int] = []
        self.checks = 0
        self.sent = 0
        self.bodies: list[Body] = []
        self.rest_size: int | None = None
        self.down = False
        self.ranges = True
        self.shift = 0
        self.unsatisfied = False
        self.opening: Deferred[None] | None = None

    @property
    def body(self) -> Body:
        """The body that was begun last."""
        return self.bodies[-1]

    @property
    def running(self) -> Body | None:
        """The body that can go on, if there is one."""
        return self.bodies[-1] if self.bodies and not self.bodies[-1].over else None

    async def open(self, offset: int) -> Answer:
        """Answer a source."""
        self.opens.append(offset)
        if self.opening is not None:
            await self.opening
        if self.down:
            raise Unreachable("the upstream is down")
        if offset and self.unsatisfied:
            raise RangeInvalid(content_size=self.size)
        if not offset or not self.ranges:
            return Answer(self._body(0, self.size))
        size = self.rest_size or self.size
        part = ContentRange(offset + self.shift, (size or len(self.data)) - 1, size)
        return Answer(self._body(offset + self.shift, part.length), 206, content_range=part)

    def _body(self, offset: int, length: int | None) -> Body:
        self.bodies.append(Body(self, offset, Descriptor("application/octet-stream", None, length)))
        return self.bodies[-1]


@implementer(IBody, IPushProducer)
class Body:
    """A body that is sent piece by piece."""

    def __init__(self, upstream: Upstream, offset: int, descriptor: Descriptor) -> None:
        self.descriptor = descriptor
        self.offset = offset
        self.discarded = False
        self.cancelled = False
        self.paused = False
        self._upstream = upstream
        self._consumer: IConsumer | None = None
        self._done: Deferred[None] = Deferred(lambda _: self._cancel())

    @property
    def over(self) -> bool:
        """True when it cannot go on."""
        return self.discarded or self.cancelled or self._done.called or self._consumer is None

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        self._consumer = consumer
        consumer.registerProducer(self, True)
        return self._done

    def discard(self) -> None:
        self.discarded = True

    def send(self, count: int | None = None) -> Body:
        """Send so many bytes more, or all."""
        data = self._upstream.data
        end = len(data) if count is None else min(len(data), self.offset + count)
        return self.send_these(data[self.offset : end])

    def send_these(self, data: bytes) -> Body:
        """Send any bytes."""
        assert self._consumer is not None
        for start in range(0, len(data), PIECE):
            piece = data[start : start + PIECE]
            if not self.over:
                self.offset += len(piece)
                self._upstream.sent += len(piece)
                self._consumer.write(piece)
        return self

    def end(self) -> None:
        """End the body."""
        if not self.over:
            self._unregister()
            self._done.callback(None)

    def finish(self) -> None:
        """Send the rest and end."""
        self.send().end()

    def break_off(self) -> None:
        """Lose the connection."""
        self._unregister()
        self._done.errback(Unreachable("the upstream broke off"))

    def _cancel(self) -> None:
        self.cancelled = True
        self._unregister()

    def _unregister(self) -> None:
        assert self._consumer is not None
        self._consumer.unregisterProducer()

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False

    def stopProducing(self) -> None:
        """Send on: the delivery is cancelled by its consumer."""


@implementer(ISource)
class Source:
    """One reader's source; the upstream refuses it with the error, if there is one."""

    def __init__(self, upstream: Upstream, refusal: RegistryError | None = None) -> None:
        self.refusal = refusal
        self.opens = 0
        self.checks = 0
        self._upstream = upstream

    async def open(self, offset: int) -> Answer:
        self.opens += 1
        self._refuse()
        return await self._upstream.open(offset)

    async def check(self, held: HeldBlob) -> None:
        self.checks += 1
        self._upstream.checks += 1
        self._refuse()

    def _refuse(self) -> None:
        if self.refusal is not None:
            raise self.refusal


class HeldCheck(Source):
    """A source whose check is answered when the test says so.

    :ivar held: the blob that is checked.
    """

    held: HeldBlob

    def __init__(self, upstream: Upstream) -> None:
        super().__init__(upstream)
        self.answer: Deferred[None] = Deferred()

    async def check(self, held: HeldBlob) -> None:
        self.held = held
        await self.answer
        await super().check(held)


@implementer(IConsumer)
class Client:
    """A client that pauses when the test says so, or after each piece.

    :ivar outcome: None while it reads; then True, or the error.
    """

    def __init__(self, picky: bool = False) -> None:
        self._received = bytearray()
        self.pieces: list[int] = []
        self.outcome: object = None
        self.producer: IPushProducer | None = None
        self.paused = False
        self.written_while_paused = 0
        self._picky = picky
        self._delivery: Deferred[None] | None = None

    @property
    def received(self) -> bytes:
        """All bytes that were written."""
        return bytes(self._received)

    def read(
        self, reader: IDownloadReader, descriptor: Descriptor, part: ContentRange | None = None
    ) -> Client:
        """Begin to read."""
        self._delivery = reader.content(descriptor, part).deliver(self)
        self._delivery.addCallbacks(lambda _: self._end(True), lambda failure: self._end(failure.value))
        return self

    def leave(self) -> None:
        """Leave."""
        assert self._delivery is not None
        self._delivery.cancel()

    def pause(self) -> None:
        """Take nothing for a while."""
        self.paused = True
        if self.producer is not None:
            self.producer.pauseProducing()

    def resume(self) -> None:
        """Take more."""
        self.paused = False
        if self.producer is not None:
            self.producer.resumeProducing()

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        assert streaming
        assert self.producer is None
        self.producer = IPushProducer(producer)

    def unregisterProducer(self) -> None:
        assert self.producer is not None
        self.producer = None

    def write(self, data: bytes) -> None:
        assert self.outcome is None
        self.written_while_paused += self.paused
        self._received += data
        self.pieces.append(len(data))
        if self._picky:
            self.pause()

    def _end(self, outcome: object) -> None:
        assert self.producer is None
        self.outcome = outcome


@implementer(IFileConsumer)
class FileClient(Client):
    """A client that takes bytes of files as a socket does: so many, and then none until it is resumed.

    :ivar sent: how many it took.
    """

    def __init__(self, room: int = 150_000) -> None:
        super().__init__()
        self.sent = 0
        self._room = self._left = room

    def send_file(self, file: int, offset: int, length: int) -> int | None:
        assert self.outcome is None
        self.written_while_paused += self.paused
        left, data = self._left, os.pread(file, min(length, self._left), offset)
        self._left -= len(data)
        self.sent += len(data)
        self._received += data
        self.pieces.append(len(data))
        if len(data) < length:
            self.pause()
        return len(data) if left else None

    def resume(self) -> None:
        self._left = self._room
        super().resume()


@implementer(IContentStore)
class Contents:
    """A store that notes its links; blobs are stored where the layout says."""

    def __init__(self, root: Path) -> None:
        self.links: list[tuple[Repository, Digest, ContentKind]] = []
        self.full = False
        self._root = root

    async def open(self, repository: Repository, digest: Digest, kind: ContentKind) -> IStoredContent | None:
        raise NotImplementedError

    async def holds(self, digest: Digest) -> bool:
        return (
            self._root / "docker/registry/v2/blobs/sha256" / digest.hex[:2] / digest.hex / "data"
        ).exists()

    async def peek(self, digest: Digest) -> IStoredContent | None:
        raise NotImplementedError

    async def link(self, repository: Repository, digest: Digest, kind: ContentKind) -> bool:
        if self.full:
            raise OSError("no space left")
        held = await self.holds(digest)
        if held:
            self.links.append((repository, digest, kind))
        return held

    async def add(self, repository: Repository, digest: Digest, kind: ContentKind, data: bytes) -> None:
        raise NotImplementedError

    async def unlink(self, repository: Repository, digest: Digest, kind: ContentKind) -> None:
        raise NotImplementedError


class Joining:
    """One reader's join, and its outcome."""

    def __init__(self, joining: Deferred[IDownloadReader]) -> None:
        self._then: Callable[[IDownloadReader], object] | None = None
        self.reader: IDownloadReader | None = None
        self.error: BaseException | None = None
        self._joining = joining
        joining.addCallbacks(self._joined, self._failed)

    def once(self, then: Callable[[IDownloadReader], object]) -> None:
        """Call this as soon as the reader is admitted."""
        self._then = then
        if self.reader is not None:
            then(self.reader)

    def cancel(self) -> None:
        """Leave before the reader is admitted."""
        self._joining.cancel()

    def _joined(self, reader: IDownloadReader) -> None:
        self.reader = reader
        if self._then is not None:
            self._then(reader)

    def _failed(self, failure: Failure) -> None:
        self.error = failure.value


class Mirror:
    """One process's downloads on a directory.

    :param opened: which descriptor was opened by which of several.
    """

    def __init__(
        self, root: Path, data: bytes, finish: int = 0, opened: dict[int, Mirror] | None = None
    ) -> None:
        self._opened: dict[int, Mirror] = {} if opened is None else opened
        self.clock = Clock()
        self.digest = Digest.of(data)
        self.root = root
        self.contents = Contents(root)
        self.context = DownloadContext(root, self.contents, self.clock, self._in_thread, self._grown, finish)
        self.downloads = Downloads(self.context)
        self.grown = 0
        self._held: Deferred[None] | None = None
        self.descriptor = Descriptor("application/octet-stream", self.digest, len(data))

    def hold_threads(self) -> Deferred[None]:
        """Hold the next call to a thread until this fires."""
        self._held = Deferred()
        return self._held

    def _grown(self, size: int) -> None:
        self.grown += size

    async def _in_thread(self, call: Callable[[], T], /) -> T:
        if self._held is not None:
            held, self._held = self._held, None
            await held
        before = open_files(self.root)
        outcome = call()
        self._opened.update((file, self) for file, _ in set(open_files(self.root)) - set(before))
        return outcome

    @property
    def part(self) -> Path:
        """The path of the partial file."""
        return self.root / "dockmirror/growing" / REGISTRY / f"sha256-{self.digest.hex}"

    @property
    def blob(self) -> Path:
        """The path of the finished blob."""
        return blob_path(self.root, self.digest)

    @property
    def is_downloading(self) -> bool:
        """True while a process downloads the blob."""
        return self.downloads.is_downloading(REGISTRY, self.digest)

    def join(self, source: ISource, repository: Repository = BUSYBOX, registry: str = REGISTRY) -> Joining:
        """Begin to join."""
        joining = self.downloads.join(registry, repository, self.digest, source)
        return Joining(Deferred.fromCoroutine(joining))

    def enter(self, source: ISource, repository: Repository = BUSYBOX) -> IDownloadReader:
        """Join, which must succeed at once."""
        joining = self.join(source, repository)
        assert joining.reader is not None, joining.error
        return joining.reader

    def read(self, source: ISource, part: ContentRange | None = None, client: Client | None = None) -> Client:
        """Join, and have a client read."""
        descriptor = evolve(self.descriptor, size=part.length) if part else self.descriptor
        return (client or Client()).read(self.enter(source), descriptor, part)

    def kill(self) -> None:
        """Drop its locks, as the kernel does then.  It must not be given a turn after that."""
        for file, _ in open_files(self.root):
            if self._opened[file] is self:
                fcntl.flock(file, fcntl.LOCK_UN)

    def turn(self, seconds: float = 0.0, times: int = 1) -> None:
        """Let time pass."""
        for _ in range(times):
            self.clock.advance(seconds)


def blob_path(root: Path, digest: Digest) -> Path:
    """Return the path of a finished blob."""
    return root / "docker/registry/v2/blobs/sha256" / digest.hex[:2] / digest.hex / "data"


@contextmanager
def all_closed(root: Path) -> Iterator[None]:
    """Check that no file below the root is left open."""
    assert open_files(root) == []
    yield
    assert open_files(root) == []


def open_files(root: Path) -> list[tuple[int, str]]:
    """Return the files below the root that this process has open, deleted or not."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found.append((int(name), os.readlink(f"/proc/self/fd/{name}")))
    return [(file, path) for file, path in found if path.startswith(str(root))]


def part(first: int, last: int) -> ContentRange:
    """A part of the blob."""
    return ContentRange(first, last, SIZE)


def finish(upstream: Upstream, mirror: Mirror) -> None:
    """Send the rest of all that was requested."""
    for _ in range(3):
        for body in upstream.bodies:
            if not body.over:
                body.finish()
        mirror.turn(times=10)


def leave_part(mirror: Mirror, data: bytes, told: str | None = None) -> None:
    """Leave what a killed process leaves: a partial file, and perhaps its metadata."""
    mirror.part.parent.mkdir(parents=True, exist_ok=True)
    mirror.part.write_bytes(data)
    if told is not None:
        mirror.part.with_name(mirror.part.name + ".size").write_text(told)


def leave_cold_part(mirror: Mirror) -> None:
    """Leave half of the blob on the disk, and not in memory."""
    mirror.part.parent.mkdir(parents=True)
    mirror.part.with_name(mirror.part.name + ".size").write_text(f"{SIZE}\n")
    with open(mirror.part, "wb") as file:
        file.write(DATA[:HALF])
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def full(size: int) -> Iterator[None]:
    """Let no file grow beyond that size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
