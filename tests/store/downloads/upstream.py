"""An upstream that the test controls, sources and clients of it, and processes that download."""

from __future__ import annotations

import fcntl
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol, TypeVar

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from dockmirror.interfaces import (
    Answer,
    ContentKind,
    IBody,
    IDownloadReader,
    ISource,
)
from dockmirror.oci.consent import HeldBlob
from dockmirror.oci.digest import Descriptor, Digest
from dockmirror.oci.errors import RangeInvalid, Unreachable
from dockmirror.oci.header_fields import ContentRange
from dockmirror.oci.request import Repository
from dockmirror.store import layout
from dockmirror.store.downloads.context import DownloadContext
from dockmirror.store.downloads.downloads import POLL, Downloads
from dockmirror.store.local_store import LocalContentStore

from ...answering import Feed, FileRecorder, Recorder
from ..threads import inline

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
    """An upstream with one blob, which sends as much of it as the test says.

    :ivar opens: the requested offsets.
    :ivar checks: the number of checks of a source.
    :ivar sent: the number of bytes that left it.
    :ivar bodies: the bodies, in the order of the requests.
    :ivar size: the blob's size as it reports it.
    :ivar rest_size: the size that it reports with a range; None if it is the same.
    :ivar ranges: it answers a range with 206, else with 200.
    :ivar shift: the distance of its ranges from the requested ones.
    :ivar unsatisfied: it answers a range with 416.
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
        return self.bodies[-1]

    @property
    def running(self) -> Body | None:
        """The body that can go on, if there is one."""
        return self.bodies[-1] if self.bodies and not self.bodies[-1].over else None

    async def open(self, offset: int) -> Answer:
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


class Body(Feed):
    """A body that is sent piece by piece."""

    def __init__(self, upstream: Upstream, offset: int, descriptor: Descriptor) -> None:
        super().__init__(descriptor)
        self.offset = offset
        self._upstream = upstream

    @property
    def over(self) -> bool:
        return self.state != "open"

    @property
    def discarded(self) -> bool:
        return self.state == "discarded"

    @property
    def cancelled(self) -> bool:
        return self.state == "cancelled"

    def advance(self, count: int | None = None) -> Body:
        """Send so many bytes more, or all."""
        data = self._upstream.data
        end = len(data) if count is None else min(len(data), self.offset + count)
        return self.send_these(data[self.offset : end])

    def send_these(self, data: bytes) -> Body:
        for start in range(0, len(data), PIECE):
            if not self.over:
                piece = data[start : start + PIECE]
                self.offset += len(piece)
                self._upstream.sent += len(piece)
                self.send(piece)
        return self

    def finish(self) -> None:
        self.advance().end()


class BlobUpstream(Protocol):
    """An upstream with one blob."""

    checks: int

    async def open(self, offset: int) -> Answer: ...


@implementer(ISource)
class Source:
    """One reader's source; the upstream refuses it with the error, if there is one."""

    def __init__(self, upstream: BlobUpstream, refusal: Exception | None = None) -> None:
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


class Client(Recorder):
    """A client that pauses when the test says so, or after each piece.

    :ivar outcome: None while it reads; then True, or the error.
    """

    def __init__(self, picky: bool = False) -> None:
        super().__init__()
        self.outcome: object = None
        self.paused = False
        self.written_while_paused = 0
        self._picky = picky
        self._delivery: Deferred[None] | None = None

    def read(
        self, reader: IDownloadReader, descriptor: Descriptor, part: ContentRange | None = None
    ) -> Client:
        return self.deliver(reader.content(descriptor, part))

    def deliver(self, content: IBody) -> Client:
        self._delivery = content.deliver(self)
        self._delivery.addCallbacks(lambda _: self._end(True), lambda failure: self._end(failure.value))
        return self

    def leave(self) -> None:
        assert self._delivery is not None
        self._delivery.cancel()

    def pause(self) -> None:
        self.paused = True
        if self.producer is not None:
            super().pause()

    def resume(self) -> None:
        self.paused = False
        if self.producer is not None:
            super().resume()

    def write(self, data: bytes) -> None:
        assert self.outcome is None
        self.written_while_paused += self.paused
        super().write(data)
        if self._picky:
            self.pause()

    def _end(self, outcome: object) -> None:
        assert self.producer is None
        self.outcome = outcome


class FileClient(FileRecorder, Client):
    """A client that takes bytes of files like a socket: so many, and then none until it is resumed."""

    def __init__(self, room: int = 150_000) -> None:
        super().__init__(room)

    def send_file(self, file: int, offset: int, length: int) -> int | None:
        assert self.outcome is None
        self.written_while_paused += self.paused
        return super().send_file(file, offset, length)


class Contents(LocalContentStore):
    """A store that notes the repositories that it links, or whose disk is full."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, Clock(), inline)
        self.linked: list[Repository] = []
        self.full = False

    async def link(self, repository: Repository, digest: Digest, kind: ContentKind) -> bool:
        if self.full:
            raise OSError("no space left")
        is_held = await super().link(repository, digest, kind)
        self.linked += [repository] * is_held
        return is_held


class Joining:
    """One reader's join, and its outcome."""

    def __init__(self, joining: Deferred[IDownloadReader]) -> None:
        self._then: Callable[[IDownloadReader], object] = lambda _: None
        self._reader: IDownloadReader | None = None
        self.error: BaseException | None = None
        self.cancel = joining.cancel
        joining.addCallbacks(self._joined, self._failed)

    @property
    def is_admitted(self) -> bool:
        return self._reader is not None

    @property
    def reader(self) -> IDownloadReader:
        assert self._reader is not None, self.error
        return self._reader

    def once(self, then: Callable[[IDownloadReader], object]) -> None:
        """Call this as soon as the reader is admitted."""
        self._then = then
        if self._reader is not None:
            then(self._reader)

    def _joined(self, reader: IDownloadReader) -> None:
        self._reader = reader
        self._then(reader)

    def _failed(self, failure: Failure) -> None:
        self.error = failure.value


class Mirror:
    """One process's downloads on a directory.

    :param opened: the process that opened each descriptor, if there are several.
    """

    def __init__(
        self, root: Path, data: bytes, finish: int = 0, opened: dict[int, Mirror] | None = None
    ) -> None:
        self._opened: dict[int, Mirror] = {} if opened is None else opened
        self.clock = Clock()
        self.digest = Digest.of(data)
        self.root = root
        self.contents = Contents(root)
        self.context = DownloadContext(root, self.contents, self.clock, self._in_thread, self._count, finish)
        self.downloads = Downloads(self.context)
        self.written = 0
        self._delay: Deferred[None] | None = None
        self.descriptor = Descriptor("application/octet-stream", self.digest, len(data))

    def hold_threads(self) -> Deferred[None]:
        """Hold the next call to a thread until this fires."""
        self._delay = Deferred()
        return self._delay

    def _count(self, size: int) -> None:
        self.written += size

    async def _in_thread(self, call: Callable[[], T], /) -> T:
        if self._delay is not None:
            delay, self._delay = self._delay, None
            await delay
        before = open_files(self.root)
        outcome = call()
        self._opened.update((file, self) for file, _ in set(open_files(self.root)) - set(before))
        return outcome

    @property
    def part(self) -> Path:
        return self.root / layout.growing(REGISTRY, self.digest)

    @property
    def metadata(self) -> Path:
        return self.root / layout.growing_size(REGISTRY, self.digest)

    @property
    def blob(self) -> Path:
        return self.root / layout.data(self.digest)

    @property
    def is_downloading(self) -> bool:
        return self.downloads.is_downloading(REGISTRY, self.digest)

    def join(self, source: ISource, repository: Repository = BUSYBOX, registry: str = REGISTRY) -> Joining:
        joining = self.downloads.join(registry, repository, self.digest, source)
        return Joining(Deferred.fromCoroutine(joining))

    def enter(self, source: ISource, repository: Repository = BUSYBOX) -> IDownloadReader:
        return self.join(source, repository).reader

    def read(self, source: ISource, part: ContentRange | None = None, client: Client | None = None) -> Client:
        descriptor = evolve(self.descriptor, size=part.length) if part else self.descriptor
        return (client or Client()).read(self.enter(source), descriptor, part)

    def kill(self) -> None:
        """Drop its locks, as the kernel does then.  It must not be given a turn after that."""
        for file, _ in open_files(self.root):
            if self._opened[file] is self:
                fcntl.flock(file, fcntl.LOCK_UN)

    def turn(self, seconds: float = 0.0, times: int = 1) -> None:
        for _ in range(times):
            self.clock.advance(seconds)


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
    return ContentRange(first, last, SIZE)


def finish(upstream: Upstream, *mirrors: Mirror) -> None:
    """Send the rest of all that was requested, and let the processes take it."""
    for _ in range(3):
        for body in upstream.bodies:
            if not body.over:
                body.finish()
        for mirror in mirrors:
            mirror.turn(POLL, 10)


def leave_part(mirror: Mirror, data: bytes, metadata: str | None = None) -> None:
    """Leave what a killed process leaves: a partial file, and perhaps its metadata."""
    mirror.part.parent.mkdir(parents=True, exist_ok=True)
    mirror.part.write_bytes(data)
    if metadata is not None:
        mirror.metadata.write_text(metadata)


def join_cold(mirror: Mirror, upstream: Upstream) -> tuple[IDownloadReader, Deferred[None]]:
    """Join a download of which half is on the disk, and not in memory; return what holds up its hash, too."""
    leave_part(mirror, DATA[:HALF], f"{SIZE}\n")
    opening = mirror.hold_threads()
    joining = mirror.join(Source(upstream))
    hashing = mirror.hold_threads()
    opening.callback(None)
    return joining.reader, hashing


def read_until_full(
    mirror: Mirror, upstream: Upstream, size: int = HALF, client: Client | None = None
) -> Client:
    """Read a blob of which the disk takes only so much."""
    client = mirror.read(Source(upstream), client=client)
    with full(size):
        upstream.body.advance()
    mirror.turn(times=10)
    return client


@contextmanager
def full(size: int) -> Iterator[None]:
    """Let no file grow beyond that size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
