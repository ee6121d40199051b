"""What goes from a bucket: what nobody has used for long."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import PurePosixPath

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from ...oci.digest import Digest
from ...oci.media import parse_references
from .. import layout
from . import bucket_keys
from .blocking_bucket import ListedObject
from .bucket import Bucket
from .bucket_keys import BucketLink
from .last_used_journal import LastUsedJournal

DAY = 24 * 3600.0
_AT_ONCE = 900
"""Objects that are deleted by one request at the most."""


@frozen
class ExpiryResult:
    """What went."""

    contents: int
    bytes: int


class BucketExpiry:
    """Deletes what was neither put nor used for so long, by one mirror a day.

    A manifest that stays keeps what it refers to.  Links go before what they are to; one that is written
    meanwhile may outlive it, is of no effect, and goes the next time that its content does.

    :param age: in seconds; what was used in the last day stays in any case.
    """

    def __init__(self, bucket: Bucket, uses: LastUsedJournal, clock: IReactorTime, age: float) -> None:
        self._bucket = bucket
        self._uses = uses
        self._clock = clock
        self._age = max(DAY, age)

    async def run(self) -> ExpiryResult | None:
        """Cleans, unless a mirror has today; None then.

        :raises OSError: when the bucket fails in between; the rest is left to the next day.
        """
        today = int(self._clock.seconds() // DAY)
        if not await self._bucket.put_new(layout.CLEANINGS / str(today), b""):
            return None
        earlier = await self._bucket.list(layout.CLEANINGS)
        await self._delete([each.key for each in earlier if not each.key.endswith(f"/{today}")])
        return await self._clean()

    async def _clean(self) -> ExpiryResult:
        before = self._clock.seconds() - self._age
        used = await self._uses.load(before)
        old = await self._bucket.sift(layout.BLOBS, partial(_old, before, used))
        found = await self._bucket.sift(layout.REPOSITORIES, partial(_found, old))
        stay = {*await self._needed(found.manifests), *await self._uses.load(before)}
        gone = {digest: each for digest, each in old.items() if digest not in stay}
        links = [link for link in found.links if link.digest in gone]
        await self._forget_tags([link for link in links if link.tag is not None])
        await self._delete([link.key for link in links if link.tag is None])
        await self._delete([each.key for each in gone.values()])
        return ExpiryResult(len(gone), sum(each.size for each in gone.values()))

    async def _needed(self, manifests: frozenset[Digest]) -> set[Digest]:
        """What these refer to, and what that does."""
        needed: set[Digest] = set()
        unread = set(manifests)
        while unread:
            manifest = unread.pop()
            read = await self._bucket.read(layout.data(manifest))
            parts = parse_references(read[0]) if read else None
            if parts is not None:
                unread |= set(parts.manifests) - manifests - needed
                needed |= {*parts.blobs, *parts.manifests}
        return needed

    async def _forget_tags(self, links: Sequence[BucketLink]) -> None:
        """Tags that name what goes; of others only that they once did."""
        for link in links:
            assert link.tag is not None
            current: PurePosixPath = link.tag / layout.CURRENT
            read = await self._bucket.read(current)
            gone = [link.key]
            if read is not None and read[0] == str(link.digest).encode():
                gone.insert(0, str(current))
            await self._delete(gone)

    async def _delete(self, keys: Sequence[str]) -> None:
        for first in range(0, len(keys), _AT_ONCE):
            await self._bucket.delete(keys[first : first + _AT_ONCE])


@frozen
class _RecentManifests:
    """The manifests that are not old, and the links to what is."""

    manifests: frozenset[Digest]
    links: Sequence[BucketLink]


def _old(
    before: float, used: Mapping[Digest, float], listed: Iterator[ListedObject]
) -> Mapping[Digest, ListedObject]:
    """What was neither put nor used since."""
    contents = bucket_keys.parse_contents(each for each in listed if each.modified < before)
    return {digest: each for digest, each in contents if digest not in used}


def _found(old: Mapping[Digest, ListedObject], listed: Iterator[ListedObject]) -> _RecentManifests:
    manifests, links = set(), []
    for link in bucket_keys.parse_links(listed):
        if link.digest in old:
            links.append(link)
        elif link.manifest:
            manifests.add(link.digest)
    return _RecentManifests(frozenset(manifests), links)
