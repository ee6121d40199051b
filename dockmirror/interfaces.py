"""Contracts between packages: what each method means, returns and raises."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from enum import Enum
from pathlib import PurePosixPath
from typing import Any

from attrs import field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from zope.interface import Attribute, Interface

from .oci.consent import HeldBlob
from .oci.digest import Descriptor, Digest
from .oci.header_fields import CacheStatus, ContentRange, Range, Span
from .oci.request import RegistryRequest, Repository, Tag
from .oci.token import Login, TokenRequest
from .oci.write import Write, WriteResult


class IBody(Interface):
    """A byte stream that its owner delivers or discards, exactly once."""

    descriptor: Descriptor = Attribute("Media type, digest and size of the bytes that will be delivered.")

    def deliver(consumer: IConsumer) -> Deferred[None]:
        """Write all bytes to the consumer, under its back-pressure.

        A delivery that takes more than one turn of the reactor registers a push producer, which is always
        unregistered before the result fires: with None after the last byte was written.  It fails with a
        ``RegistryError`` if the bytes cannot be completed correctly: what was written is then a beginning
        that must be cut off.  Cancelling it ends the delivery and releases its resources.
        """

    def discard() -> None:
        """Release what the body holds (a connection, an open file); nothing will be delivered."""


class IFileConsumer(IConsumer):
    """A consumer that can send a file's bytes by the kernel (``sendfile``), without reading them.

    A wrapper that must see the bytes does not provide it.
    """

    def send_file(file: int, offset: int, length: int) -> int | None:
        """Send bytes of an open file, in order with those that are written, and return how many were sent.

        Returns 0 at the end of the file, and None if the connection takes nothing now.  Unless all were sent,
        the push producer, which must be registered, is paused.  Bytes outside the page cache block the call.

        :raises OSError: when the file cannot be read.
        """


class IAccelConsumer(IConsumer):
    """A consumer whose bytes a proxy in front can send from a file, in place of the mirror."""

    def send_by_proxy(name: PurePosixPath, part: ContentRange) -> bool:
        """Leave all that would be written to the proxy, or return False; names lie below the blobs."""


OpenRange = Callable[[Range], Coroutine[Any, Any, "Answer"]]


@frozen(slots=False)
class Answer:
    """A registry's answer to a request that it grants; refusals are raised.

    :ivar body: for HEAD and 304 it is empty, and its descriptor describes the one of a GET.
    :ivar status: 200, 206, 304, or 301 or 307 with a ``location``.
    :ivar content_range: for a 206 of one range, the range that the body is.
    :ivar location: for a 301, a path on the same host; for a 307, the address of the content.
    :ivar next_page: for a list, the query of its next page.
    :ivar headers: the few of the upstream's headers that are passed on.
    :ivar cache: the part that the cache had in the answer; None if no cache was asked.
    :ivar upstream_status: the upstream's status, for the access log; None if it was not asked.
    :ivar date: the upstream's ``Date``, verbatim; ``age``, its ``Age`` in seconds, or None without one.
    :ivar consents: True if this proves that the upstream gives it to whoever asked; see ``oci/consent.py``.
    :ivar from_other_host: True if another registry or a peer gave it, which decides nothing about consent.
    :ivar open_range: fetches a part of a blob, without credentials, from the host that the registry has
        redirected to.  Fails with a ``RegistryError``, for good once the address has expired.
    :ivar reject: reports that a blob of that digest was wrong, so that the address which sent it is not asked
        for it for a while; equal for answers of the same address.
    """

    body: IBody
    status: int = 200
    content_range: ContentRange | None = None
    location: str | None = None
    next_page: tuple[tuple[str, str], ...] | None = None
    headers: tuple[tuple[str, str], ...] = field(default=())
    cache: CacheStatus | None = None
    upstream_status: int | None = None
    date: str | None = None
    age: float | None = None
    consents: bool = False
    from_other_host: bool = False
    open_range: OpenRange | None = field(default=None, eq=False, repr=False)
    reject: Callable[[Digest], None] | None = field(default=None, eq=False, repr=False)

    def with_body(self, body: IBody) -> Answer:
        """Return the answer with another body, faster than ``evolve``: most requests need one."""
        answer = object.__new__(Answer)
        answer.__dict__.update(self.__dict__, body=body)
        return answer


class IRegistry(Interface):
    """A registry, or a wrapper of one that adds behaviour."""

    async def fetch(request: RegistryRequest) -> Answer:
        """Answer the request.

        :raises RegistryError: the reason for a refusal; ``Unauthorized`` with the registry's challenges if it
            demands credentials; ``Unreachable`` if it gave no answer.
        """


class ITokenService(Interface):
    """The token service of a registry, or a wrapper of one."""

    async def token(request: TokenRequest) -> Answer:
        """Return the JSON of a token, under both of its names.

        :raises RegistryError: the token service's refusal, or that it may be sent no credentials.
        """


class IUpstream(IRegistry, ITokenService):
    """A registry with its token service."""


class IWritableRegistry(Interface):
    """A registry that takes pushes and deletions, or a wrapper of one."""

    async def write(write: Write, body: IBody) -> WriteResult:
        """Write, and return the registry's answer; the body may be discarded, or cancelled in the middle.

        :raises RegistryError: the reason for a refusal, as of ``IRegistry.fetch``; or the error of a body
            that the client ended too early.
        """


class IAccount(Interface):
    """An account that the mirror has at an upstream."""

    async def login() -> Login:
        """Return the current login; raises ``Unavailable`` when there is none."""

    def forget(login: Login) -> None:
        """Forget a login that the upstream refused; a newer one is returned next, if there is one."""


class ContentKind(Enum):
    """The kind of a repository's link to a digest: the same bytes may be a blob here and a manifest there."""

    BLOB = "blob"
    MANIFEST = "manifest"


class IStoredContent(Interface):
    """An open stored content, which eviction cannot take away; its owner calls ``body`` or ``close`` once."""

    size: int = Attribute("Bytes.")

    def body(descriptor: Descriptor, segments: Sequence[bytes | ContentRange]) -> IBody:
        """Return a body of parts of the content and literal bytes, which closes the content at its end."""

    def close() -> None:
        """Close it unread."""


class IBucketBlob(IStoredContent):
    """A content in the bucket, which is worth being fetched only once.

    It may also be opened as an ``ISource``: from an offset on, and again if that breaks off.  It must be
    closed all the same.
    """

    async def open(offset: int) -> Answer:
        """Fetch the content from that offset on: 206 from there, or 200 with all of it.

        :raises Unreachable: when the bucket does not give it; the body's delivery fails so, too.
        """

    async def presigned_url() -> str | None:
        """Return a short-lived URL for the client, or None if clients are not to be redirected."""


class IContentStore(Interface):
    """Verified contents, and the links that say which repository has which.

    A repository's name begins with its registry's here: ``docker.io/library/busybox``.  Held bytes alone
    grant no access: only a link says that a repository has them, and as what.
    """

    async def open(repository: Repository, digest: Digest, kind: ContentKind) -> IStoredContent | None:
        """Open a complete content that the repository links as that kind, or return None.

        Updates its time of last use, at most once a minute.
        """

    async def holds(digest: Digest) -> bool:
        """Return whether the bytes are held, whichever repository links them."""

    async def peek(digest: Digest) -> IStoredContent | None:
        """Return the bytes, whichever repository links them: only to compare with others."""

    async def link(repository: Repository, digest: Digest, kind: ContentKind) -> bool:
        """Link the content to the repository; return False if the bytes are not held."""

    async def add(repository: Repository, digest: Digest, kind: ContentKind, data: bytes) -> bool:
        """Store a small, verified content, and link it; return False if it was deleted or recalled.

        :raises OSError: when it cannot be stored; nothing has changed then.
        """

    async def unlink(repository: Repository, digest: Digest, kind: ContentKind) -> None:
        """Remove the repository's link; the bytes stay for others."""


@frozen
class TagEntry:
    """The digest that a tag named when it was last confirmed, in seconds since the epoch."""

    digest: Digest
    confirmed: float


class ITagStore(Interface):
    """The digests that tags name."""

    async def get(repository: Repository, tag: Tag) -> TagEntry | None:
        """Return the tag's entry, or None."""

    async def put(repository: Repository, tag: Tag, digest: Digest, age: float = 0.0) -> None:
        """Record what the tag names, confirmed ``age`` seconds ago; the manifest must be held."""

    async def forget(repository: Repository, tag: Tag) -> None:
        pass

    async def forget_named(repository: Repository, digest: Digest) -> None:
        """Forget all tags of the repository that name the digest."""


@frozen
class Sighting:
    """An unbroken time in which a tag named a digest, in seconds since the epoch.

    :ivar first: when the upstream named it first, after another digest or as the first of all.
    :ivar last: when the upstream named it last.
    :ivar is_baseline: True for the first digest that was ever seen of the tag.
    """

    digest: Digest
    first: float
    last: float
    is_baseline: bool = False


class ITagHistory(Interface):
    """The digests that the tags of upstreams have named.

    They are remembered for 400 days, and longer where a cool-down may still serve them.  An upstream is named
    as in the settings.  Each method may raise ``OSError``: it cannot be read or written.
    """

    async def record(upstream: str, repository: Repository, tag: Tag, digest: Digest, seen: float) -> None:
        """Record that the upstream's tag named the digest at that time."""

    async def record_push(
        upstream: str, repository: Repository, tag: Tag, digest: Digest, pushed: float
    ) -> None:
        """Record when a tag was pushed, as its registry says, if it was never seen with another digest."""

    async def record_pull(upstream: str, repository: Repository, tag: Tag, now: float) -> None:
        """Record that a client asked for the tag, at most once a day."""

    async def sightings(upstream: str, repository: Repository, tag: Tag) -> Sequence[Sighting]:
        """Return the sightings of a tag, oldest first."""

    async def last_pull(upstream: str, repository: Repository, tag: Tag) -> float:
        """Return when a client last asked for the tag, or 0."""

    async def tags(upstream: str, repository: Repository | None = None) -> Sequence[tuple[Repository, Tag]]:
        """Return the tags of an upstream that have a history, in order.

        :param repository: returns only those of this one that the mirror itself has seen.
        """

    async def version(upstream: str, repository: Repository) -> object | None:
        """Return a value that changes with every sighting of the repository's tags by the mirror itself.

        None if there are none, or if they have just changed: then the next change may leave it as it is.
        """


class IDocumentStore(Interface):
    """Small documents by name, which survive a restart: lists, challenges, public repositories."""

    async def read(name: str) -> bytes | None:
        """Return the document, or None."""

    async def write(name: str, data: bytes) -> None:
        """Replace the document atomically."""


class IStagedUpload(Interface):
    """A copy of a blob that is being pushed; its owner must finish it."""

    def write(data: bytes) -> None:
        """Append data; never fails or blocks."""

    async def finish() -> int | None:
        """End the copy, and return its size in bytes, or None if it could not be stored."""


class IUploadStaging(Interface):
    """Copies of blobs that are being pushed to an upstream, under secret names."""

    async def open(name: str, offset: int) -> IStagedUpload | None:
        """Open the copy at that offset and truncate it there; return None if that is not possible."""

    async def commit(name: str, digest: Digest) -> bool:
        """Store the copy as that content, and return whether it is; the copy is gone in any case."""

    async def drop(name: str) -> None:
        """Delete the copy."""


class ISource(Interface):
    """A reader's own way to fetch a blob: with its path and its credentials."""

    async def open(offset: int) -> Answer:
        """Fetch the blob from that offset on: 206 from there, or 200 with all of it.

        :raises RegistryError: the refusal; ``Unreachable`` if another attempt may succeed.
        """

    async def check(held: HeldBlob) -> None:
        """Ask the upstream only whether this reader may have the blob.

        :param held: the blob, of which a part may have to be compared.
        :raises RegistryError: when it may not.
        """


class IPartSource(ISource):
    """A reader's own way to fetch parts of a blob, too."""

    async def open_part(first: int, last: int) -> Answer:
        """Fetch the bytes from ``first`` to ``last``, as far as the blob reaches; raises like ``open``."""


class IDownloadReader(Interface):
    """One reader of a download; it reads once or leaves."""

    size: int | None = Attribute("Bytes of the blob; None if the upstream does not tell.")
    joined: bool = Attribute("True if the download was begun for another reader.")

    def content(descriptor: Descriptor, part: ContentRange | None) -> IBody:
        """Return the blob, or a part of it, as it arrives; its last 64 KiB wait for the digest."""

    def choose_part(span: Span) -> ContentRange | None:
        """Return the part that the span is of the blob if its first byte comes soon; otherwise leave.

        :raises RangeInvalid: when there is no such part; the reader has left then, too.
        """

    def leave() -> None:
        """Leave without reading."""


class IDownloads(Interface):
    """Downloads in flight: one writer each, many readers."""

    def is_downloading(registry: str, digest: Digest) -> bool:
        """Return whether the blob is being downloaded from that registry, by any process."""

    async def join(registry: str, repository: Repository, digest: Digest, source: ISource) -> IDownloadReader:
        """Join the download of a blob, or begin it.

        Fires once the upstream has answered.  A reader that joins another one's download is admitted by
        ``source.check``; a caller that knows the reader to be authorized gives a source whose check does
        nothing.  The blob is linked to ``repository`` (the store's name) when it is complete and verified.

        :raises RegistryError: the refusal of this reader's source; ``CorruptContent`` when the upstream's
            bytes do not match the digest, and for a while after.
        :raises OSError: when the disk cannot be written.
        """

    async def read_part(
        registry: str, repository: Repository, digest: Digest, span: Span, source: IPartSource
    ) -> Answer | None:
        """Read a part of a blob, whose blocks are fetched once; a reader is admitted as by ``join``.

        Fires with None if this reader must fetch it by itself; its ``cache`` says if it is of a download.
        """
