"""Tags in a bucket."""

from __future__ import annotations

from contextlib import suppress

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from ...interfaces import ITagStore, TagEntry
from ...oci.digest import Digest
from ...oci.errors import DigestInvalid
from ...oci.reference import Repository, Tag
from .. import layout
from .blocking_bucket import StoredObject
from .bucket import Bucket

_CONFIRMED = "confirmed"


@implementer(ITagStore)
class BucketTagStore:
    """Tags as links; when one was confirmed stands in its object's metadata."""

    def __init__(self, bucket: Bucket, clock: IReactorTime) -> None:
        self._bucket = bucket
        self._clock = clock

    async def get(self, repository: Repository, tag: Tag) -> TagEntry | None:
        """See ``ITagStore``."""
        read = await self._bucket.read(layout.current(repository, tag))
        if read is None:
            return None
        try:
            return TagEntry(Digest.parse(read[0].decode("ascii")), _confirmed(read[1]))
        except (UnicodeDecodeError, DigestInvalid):
            return None

    async def put(self, repository: Repository, tag: Tag, digest: Digest) -> None:
        """See ``ITagStore``."""
        await self.note(repository, tag, TagEntry(digest, self._clock.seconds()))

    async def note(self, repository: Repository, tag: Tag, tagged: TagEntry) -> None:
        """Notes what the tag was confirmed to name."""
        link, metadata = str(tagged.digest).encode(), {_CONFIRMED: repr(tagged.confirmed)}
        await self._bucket.put(layout.indexed(repository, tag, tagged.digest), link)
        await self._bucket.put(layout.current(repository, tag), link, metadata)

    async def forget(self, repository: Repository, tag: Tag) -> None:
        """See ``ITagStore``."""
        listed = await self._bucket.list(layout.tag(repository, tag))
        await self._bucket.delete([str(layout.current(repository, tag)), *(each.key for each in listed)])

    async def forget_named(self, repository: Repository, digest: Digest) -> None:
        """See ``ITagStore``."""
        directory, entry = layout.tags(repository), str(layout.INDEX / layout.entry(digest))
        for each in await self._bucket.list(directory):
            name, _, rest = each.key.removeprefix(f"{directory}/").partition("/")
            if rest == entry:
                named = await self.get(repository, Tag(name))
                if named is not None and named.digest == digest:
                    await self.forget(repository, Tag(name))


def _confirmed(found: StoredObject) -> float:
    """Where another than a mirror wrote the link, when it was modified."""
    with suppress(ValueError):
        return float(found.metadata.get(_CONFIRMED, ""))
    return found.modified
