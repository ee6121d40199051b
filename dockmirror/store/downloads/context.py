"""The collaborators of all downloads, and what the parts of one download pass to each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

from attrs import Factory, define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from ...body.bodies import PAUSES, CorruptContent, ResumingBody, Slice, TailHoldback
from ...concurrency.coroutines import RunInThread
from ...interfaces import Answer, ContentKind, IBody, IContentStore, IPartSource, ISource
from ...oci.digest import Descriptor, Digest, Verifier
from ...oci.errors import RegistryError, Unavailable
from ...oci.request import Repository
from ...system.posix import explain_write_error


class LogOnce:
    """Logs once that the disk fails, and again only after it has worked in between."""

    _log = Logger()
    _is_logged = False

    def record_failure(self, error: OSError) -> None:
        if not self._is_logged:
            self._is_logged = True
            self._log.error(
                "the cache keeps no new blobs, and clients get them from the upstream: {reason}",
                reason=explain_write_error(error),
            )

    def record_success(self) -> None:
        self._is_logged = False


@define
class DownloadStats:
    """Counts how the downloads of this process ended."""

    kept: int = 0  # blobs that were stored
    wrong: int = 0  # blobs whose bytes did not match their digests
    failed: int = 0  # downloads that failed for another reason while somebody read them
    resumed: int = 0  # requests for the rest of a blob after the upstream had broken off


@frozen
class DownloadContext:
    """The collaborators of all downloads.

    :ivar root: the directory of the store.
    :ivar written: called with the number of bytes that were written; a negative one if a file was removed.
    :ivar finish_threshold: a download that lacks fewer bytes than this continues without readers.
    """

    root: Path
    contents: IContentStore
    clock: IReactorTime
    in_thread: RunInThread
    written: Callable[[int], None] = lambda _: None
    finish_threshold: int = 64 * 1024 * 1024
    stats: DownloadStats = Factory(DownloadStats)
    disk_log: LogOnce = Factory(LogOnce)


@frozen
class BlobVersion:
    """The size of a blob at the upstream, and the hash of its strong entity tag, if it has one."""

    size: int
    etag: str | None = None

    def accepts(self, other: BlobVersion) -> bool:
        """Return whether the other version may be the same: a missing entity tag says nothing."""
        return self.size == other.size and len({self.etag, other.etag} - {None}) <= 1


@define
class BlobLinks:
    """Links a blob to the repositories that the upstream gives it for, each once."""

    _contents: IContentStore
    _digest: Digest
    _linked: set[Repository] = field(factory=set, init=False)
    _log = Logger()

    async def link(self, repositories: set[Repository]) -> None:
        """Link the blob to these repositories, and to those that are added to them meanwhile."""
        while unlinked := repositories - self._linked:
            self._linked |= unlinked
            for repository in unlinked:
                try:
                    await self._contents.link(repository, self._digest, ContentKind.BLOB)
                except OSError as error:
                    self._log.error("{name} is not linked: {error}", name=repository.name, error=str(error))


@define
class Attempts:
    """The remaining attempts of a download, over all its restarts."""

    pauses: Iterator[float] = Factory(lambda: iter(PAUSES))  # seconds before each
    were_wrong: bool = False  # a file that was fetched in parts did not match
    may_use_blocks: bool = True  # no file was given up


class VersionChanged(Unavailable):
    """The upstream has another version of the blob than before."""


class NoBlocks(Unavailable):
    """The upstream does not serve ranges of the blob, or does not state its size with them."""


class NoReaders(Exception):
    """Raised when the last reader has left."""


class RestartRequired(Exception):
    """Raised if the partial file cannot be continued: the blob must be fetched from its start.

    :ivar error: fails the readers that have bytes of the file.
    """

    def __init__(self, error: RegistryError) -> None:
        super().__init__(str(error))
        self.error = error


class PossiblyCorrupt(RestartRequired):
    """Raised if a blob that was fetched in parts is wrong; no sender is blamed for that."""


class Rejected(CorruptContent):
    """Raised if the bytes are wrong and were rejected at the address that sent them."""


@frozen
class RangeResponse:
    """A blob's bytes from the requested offset on, and its size; None if the upstream does not report it.

    :ivar reject: see ``Answer``.
    """

    content: IBody
    size: int | None
    reject: Callable[[Digest], None] | None


def parse_range_response(answer: Answer, offset: int) -> RangeResponse:
    """Parse the answer to a request for the blob from the offset on.

    :raises RestartRequired: if it is another range.
    :raises Unavailable: if it is not a blob.
    """
    part = answer.content_range
    if answer.status == 200:
        content = Slice(answer.body, offset) if offset else answer.body
        return RangeResponse(content, answer.body.descriptor.size, answer.reject)
    if part is not None and part.first == offset and part.size in (None, part.last + 1):
        return RangeResponse(answer.body, part.size, answer.reject)
    answer.body.discard()
    if part is None:
        raise Unavailable("the upstream's answer is no blob", upstream_status=answer.upstream_status)
    raise RestartRequired(
        Unavailable("the upstream does not continue where it broke off", upstream_status=206)
    )


def parse_part(answer: Answer, first: int, last: int) -> BlobVersion:
    """Return the version of the blob of which the answer has that part, as far as the blob reaches.

    :raises NoBlocks: if the size of the blob is not stated; the body is discarded.
    :raises Unavailable: if it is another part.
    """
    part = answer.content_range
    if part is None or part.size is None:
        answer.body.discard()
        raise NoBlocks("the upstream does not state the size of the blob")
    if (part.first, part.last) != (first, min(last, part.size - 1)):
        answer.body.discard()
        raise Unavailable("the upstream sent another range than requested", upstream_status=206)
    etags = [value for name, value in answer.headers if name == "ETag" and value.startswith('"')]
    return BlobVersion(part.size, sha256(etags[0].encode()).hexdigest() if etags else None)


MAX_WAIT = 5.0
"""Seconds for which a part waits for bytes that another reader's request fetches."""
LINGER = 10.0
"""Seconds for which a download, or a fetch of blocks, goes on after the last reader of a part has left."""


@frozen
class RestOfPart:
    """The rest of a part, fetched for one reader by itself, and resumed when it breaks off.

    :param version: the version of which the reader has the beginning; only the size is known of a download.
    """

    source: IPartSource
    clock: IReactorTime
    version: BlobVersion

    def deliver(self, first: int, last: int, consumer: IConsumer) -> Deferred[None]:
        """:raises VersionChanged: if the upstream has another version now."""
        return Deferred.fromCoroutine(self._deliver(first, last, consumer))

    async def _deliver(self, first: int, last: int, consumer: IConsumer) -> None:
        async def reopen(count: int) -> IBody:
            return await self._open(first + count, last)

        await ResumingBody(await self._open(first, last), reopen, self.clock).deliver(consumer)

    async def _open(self, first: int, last: int) -> IBody:
        answer = await self.source.open_part(first, last)
        if not self.version.accepts(parse_part(answer, first, last)):
            answer.body.discard()
            raise VersionChanged("the upstream has another content than before")
        return Slice(answer.body, 0, last + 1 - first)


@frozen
class DiskFullFallback:
    """Lets each reader fetch by itself the rest that the disk could not store.

    :ivar length: the number of bytes in the file.
    :ivar verifier: has hashed these bytes.
    :ivar tail: the last of them, which no reader was given.
    :ivar size: the blob's size; None if the upstream does not report it.
    """

    verifier: Verifier
    length: int
    tail: bytes
    size: int | None
    clock: IReactorTime

    @property
    def start(self) -> int:
        """The offset up to which readers read the file."""
        return self.length - len(self.tail)

    def content(self, source: ISource, first: int, end: int | None) -> IBody:
        """Return the bytes from ``first`` on, up to ``end`` or else all.

        A part that begins after the end of the file cannot be verified, like any part that is passed through.
        """
        length = None if end is None else end - first
        if first > self.length:
            return Slice(_Rest(self, source, first), 0, length)
        return Slice(_Rest(self, source, self.length), first - self.start, length)


@implementer(IBody)
@frozen
class _Rest:
    """A blob from an offset on, resumed when it breaks off; verified if it begins where the file ends."""

    fallback: DiskFullFallback
    source: ISource
    offset: int
    descriptor = Descriptor()

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        fallback = self.fallback
        if self.offset > fallback.length:
            return Deferred.fromCoroutine(self._deliver(consumer))
        holdback = TailHoldback(
            consumer, fallback.verifier.copy(), fallback.size, fallback.length, fallback.tail
        )
        return Deferred.fromCoroutine(self._deliver(holdback)).addCallback(lambda _: holdback.release_tail())

    def discard(self) -> None:
        """Do nothing: no request was made."""

    async def _deliver(self, consumer: IConsumer) -> None:
        await ResumingBody(await self._open(0), self._open, self.fallback.clock).deliver(consumer)

    async def _open(self, count: int) -> IBody:
        offset = self.offset + count
        return parse_range_response(await self.source.open(offset), offset).content
