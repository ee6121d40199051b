"""Every seam of the house: what each promises, and how it fails."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from enum import Enum
from typing import Any

from attrs import field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from zope.interface import Attribute, Interface

from .oci.consent import HeldBlob
from .oci.descriptor import Descriptor
from .oci.digest import Digest
from .oci.ranges import ContentRange, Range
from .oci.reference import Repository, Tag
from .oci.request import RegistryRequest
from .oci.token import Login, TokenRequest
from .oci.write import Write, WriteResult


class IBody(Interface):
    """Bytes to be delivered once.  Whoever is given one delivers it or discards it, and does so once."""

    descriptor: Descriptor = Attribute("Media type, digest and size of the bytes that will be delivered.")

    def deliver(consumer: IConsumer) -> Deferred[None]:
        """Writes all bytes to the consumer, at its pace.

        Where it takes more than one turn of the reactor, a push producer is registered with the
        consumer meanwhile.  Fires with None after the last byte was written.  Fails with a
        ``RegistryError`` where the bytes cannot be completed correctly: what was written is then a
        beginning that must be cut off.  Cancelling it ends the delivery and gives back what it held.
        In every case the producer has been unregistered by then.
        """

    def discard() -> None:
        """Gives back what the content holds (a connection, an open file); nothing will be delivered."""


class IFileConsumer(IConsumer):
    """A consumer to which the kernel moves bytes of a file, so that nobody reads them.

    Whoever must see the bytes that pass does not provide it.
    """

    def send_file(file: int, offset: int, length: int) -> int | None:
        """Takes bytes of an open file, between others that are written, and tells how many.

        0 where the file ends; None where nothing goes just now.  Unless all went, the push producer,
        which must be registered, has been paused, and is resumed when more goes.  The call waits for
        the disk where the bytes are not in the page cache.

        :raises OSError: when the file does not give them.
        """


@frozen
class Answer:
    """What a registry has to say to a request that it grants.

    :ivar status: 200, 206, 304, or 301 or 307 with a ``location``; nothing else is an answer to a question,
        all else is raised.  To a write also those of ``Written``.
    :ivar content: the body; for HEAD and 304 its descriptor tells what the body would be.
    :ivar content_range: for a 206 of one range, which part of the content this is.
    :ivar location: for a 301, where on the same host the client is sent; for a 307, where it gets the
        content; after a write, where it goes on.
    :ivar next_page: for a list, the query of its next page.
    :ivar consents: whether this proves that the upstream gives it to whoever asked; see ``oci/consent.py``.
    :ivar elsewhere: whether another registry gave it, which has no say in who may have what else.
    :ivar headers: the few of the upstream's headers that travel, as they came.
    :ivar upstream_status: what the upstream answered, for the access log; None where it was not asked.
    :ivar parts: where the registry has sent on to another host for a blob, asks there for a part of it:
        without credentials, and without the registry; fails with a ``RegistryError``, soon for ever, since
        such addresses end.
    :ivar reject: to be called with the digest of a blob whose bytes from here were wrong, so that the address
        which gave them is not asked for it for a while; equal for answers of the same address.
    """

    body: IBody
    status: int = 200
    content_range: ContentRange | None = None
    location: str | None = None
    next_page: tuple[tuple[str, str], ...] | None = None
    headers: tuple[tuple[str, str], ...] = field(default=())
    upstream_status: int | None = None
    consents: bool = False
    from_other_host: bool = False
    open_range: Callable[[Range], Coroutine[Any, Any, Answer]] | None = field(
        default=None, eq=False, repr=False
    )
    reject: Callable[[Digest], None] | None = field(default=None, eq=False, repr=False)


class IRegistry(Interface):
    """A registry, or something in front of one.  Behaviour is added by wrapping this interface."""

    async def fetch(request: RegistryRequest) -> Answer:
        """What the registry has for that request.

        :raises RegistryError: the row that says why not; ``Unauthorized`` with the registry's challenges
            where it demands credentials; ``Unreachable`` where it gave no answer.
        """

    async def token(request: TokenRequest) -> Answer:
        """What the registry's token service says: the JSON of a token under both of its names.

        :raises RegistryError: as the token service refused, or because credentials may not go where
            the registry would have them go.
        """


class IWritableRegistry(Interface):
    """A registry that can be changed, or something in front of one."""

    async def write(write: Write, body: IBody) -> WriteResult:
        """What has come of it; the body may have been discarded, or be cancelled in the middle.

        :raises RegistryError: the row that says why not, as ``IRegistry.fetch`` does; what ends the body too
            early, where the client's side did.
        """


class IAccount(Interface):
    """An account that the mirror has at an upstream."""

    async def login() -> Login:
        """What to log in with now.

        :raises Unavailable: when that is not to be had.
        """

    def refused(login: Login) -> None:
        """The upstream did not take this; where there may be another by now, that is given next."""


class ContentKind(Enum):
    """As what a repository has a content: the same bytes may be a blob here and a manifest there."""

    BLOB = "blob"
    MANIFEST = "manifest"


class IStoredContent(Interface):
    """A stored content that was opened; eviction takes it away from nobody who holds one.

    Whoever is given one asks it for one ``content`` or closes it.
    """

    size: int = Attribute("Bytes.")

    def body(descriptor: Descriptor, segments: Sequence[bytes | ContentRange]) -> IBody:
        """Parts of the stored bytes, and bytes between them, in that order; closes the file at its end."""

    def close() -> None:
        """Gives it back unread."""


class IBucketBlob(IStoredContent):
    """A stored content that lies on another machine, from where it is worth being fetched only once.

    Whoever is given one may also open it as a source does, from an offset on, and again where that breaks
    off; it is closed all the same.
    """

    async def open(offset: int) -> Answer:
        """The content from that offset on: 206 from there, or 200 with the whole.

        :raises RegistryError: ``Unreachable`` where it is not given; what is delivered fails so, too.
        """

    async def presigned_url() -> str | None:
        """An address at which anybody gets it for a short while; None where clients are not sent there."""


class IContentStore(Interface):
    """Verified contents, and which repository has which.

    A repository's name begins here with its registry's: ``docker.io/library/busybox``.  Bytes that are
    held entitle nobody: only a link says that a repository has them, and as what.
    """

    async def open(repository: Repository, digest: Digest, kind: ContentKind) -> IStoredContent | None:
        """The content, where the repository is linked to it as that kind and it is held whole.

        That it was used is noted, at most once a minute.
        """

    async def holds(digest: Digest) -> bool:
        """Whether the bytes are held at all, for whichever repository."""

    async def peek(digest: Digest) -> IStoredContent | None:
        """The bytes, whichever repository has them: to compare with others, and to serve to nobody."""

    async def link(repository: Repository, digest: Digest, kind: ContentKind) -> bool:
        """Says that the repository has this content; False where the bytes are not held."""

    async def add(repository: Repository, digest: Digest, kind: ContentKind, data: bytes) -> None:
        """Keeps a small content, already verified, and links it.

        :raises OSError: when it cannot be kept; nothing has changed then.
        """

    async def unlink(repository: Repository, digest: Digest, kind: ContentKind) -> None:
        """Says that the repository does not have this content any more; the bytes stay for others."""


@frozen
class TagEntry:
    """What a tag named when it was last confirmed, in seconds since the epoch."""

    digest: Digest
    confirmed: float


class ITagStore(Interface):
    """What tags named."""

    async def get(repository: Repository, tag: Tag) -> TagEntry | None:
        """None where it is not known."""

    async def put(repository: Repository, tag: Tag, digest: Digest) -> None:
        """Notes what the tag names, confirmed now; to be called when the manifest is held."""

    async def forget(repository: Repository, tag: Tag) -> None:
        """The tag names nothing any more."""

    async def forget_named(repository: Repository, digest: Digest) -> None:
        """Forget all tags of the repository that name this."""


class IDocumentStore(Interface):
    """Small documents by name, that a restart does not lose: lists, challenges, what is public."""

    async def read(name: str) -> bytes | None:
        """None where there is none."""

    async def write(name: str, data: bytes) -> None:
        """Replaces it, whole or not at all."""


class IStagedUpload(Interface):
    """A blob that is written while it passes.  Whoever is given one ends it."""

    def write(data: bytes) -> None:
        """Takes some more of it; never fails, and nobody waits for it."""

    async def finish() -> int | None:
        """Nothing more comes; how many bytes there are, and None where they could not be kept."""


class IUploadStaging(Interface):
    """Copies of blobs that are on their way to an upstream, by names that nobody else knows."""

    async def open(name: str, offset: int) -> IStagedUpload | None:
        """The copy from that offset on, whatever came after it; None where that cannot be had."""

    async def commit(name: str, digest: Digest) -> bool:
        """Whether the copy is that content, which is held then; it is a copy no more."""

    async def drop(name: str) -> None:
        """It is not wanted."""


class ISource(Interface):
    """How one reader of a blob would fetch it: with its own path and its own credentials."""

    async def open(offset: int) -> Answer:
        """Asks the upstream for the blob from that offset on: 206 from there, or 200 with the whole.

        :raises RegistryError: as refused; ``Unreachable`` where another attempt may do better.
        """

    async def check(held: HeldBlob) -> None:
        """Asks the upstream only whether this reader may have the blob.

        :param held: the blob, of which a part may have to be compared.
        :raises RegistryError: when not.
        """


class IDownloadReader(Interface):
    """One reader's place in a download that is going on, or has just ended.  Read once, or left."""

    size: int | None = Attribute("Bytes of the whole blob; None where the upstream does not tell.")
    joined: bool = Attribute("The download of another reader is read.")

    def content(descriptor: Descriptor, part: ContentRange | None) -> IBody:
        """Return the blob, or a part of it, as it arrives; its last 64 KiB wait for the digest."""

    def seconds_until(part: ContentRange) -> float:
        """Estimate from the pace so far how long the part will take; infinite where there is none yet."""

    def leave() -> None:
        """Leave the download."""


class IDownloads(Interface):
    """Blobs that are being downloaded: one writer each, many readers."""

    def is_downloading(registry: str, digest: Digest) -> bool:
        """Return True while this process or another downloads the blob from that registry."""

    async def join(registry: str, repository: Repository, digest: Digest, source: ISource) -> IDownloadReader:
        """Join the download of a blob, which begins now if there is none.

        Fires as soon as the upstream has told the size, or not.  Where somebody else's fetch is joined,
        ``source.check`` decides first, unless that repository has given this reader's credentials the
        blob already: the caller knows, and gives a source whose check asks nobody.  When the blob is
        whole and verified it is linked to ``repository`` (the store's name of it).

        :raises RegistryError: as this reader's source was refused; ``Corrupt`` when the upstream's bytes
            are not the blob, and for a while after.
        :raises OSError: when the disk takes nothing.
        """
