"""What goes from a bucket: what nobody has used for long."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import PurePosixPath

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from ...oci.digest import Digest
from ...oci.media import parse_parts
from .. import layout
from . import inventory
from .bucket import Bucket
from .calls import Listed
from .inventory import Linked
from .uses import Uses

DAY = 24 * 3600.0
_AT_ONCE = 900
"""Objects that are deleted by one request at the most."""


@frozen
class Aged:
    """What went."""

    contents: int
    bytes: int


class Aging:
    """Deletes what was neither put nor used for so long, by one mirror a day.

    A manifest that stays keeps what it refers to.  Links go before what they are to; one that is written
    meanwhile may outlive it, is of no effect, and goes the next time that its content does.

    :param age: in seconds; what was used in the last day stays in any case.
    """

    def __init__(self, bucket: Bucket, uses: Uses, clock: IReactorTime, age: float) -> None:
        self._bucket = bucket
        self._uses = uses
        self._clock = clock
        self._age = max(DAY, age)

    async def look(self) -> Aged | None:
        """Cleans, unless a mirror has today; None then.

        :raises OSError: when the bucket fails in between; the rest is left to the next day.
        """
        today = int(self._clock.seconds() // DAY)
        if not await self._bucket.put_new(layout.CLEANINGS / str(today), b""):
            return None
        earlier = await self._bucket.list(layout.CLEANINGS)
        await self._delete([each.key for each in earlier if not each.key.endswith(f"/{today}")])
        return await self._clean()

    async def _clean(self) -> Aged:
        before = self._clock.seconds() - self._age
        used = await self._uses.known(before)
        old = await self._bucket.sift(layout.BLOBS, partial(_old, before, used))
        found = await self._bucket.sift(layout.REPOSITORIES, partial(_found, old))
        stay = {*await self._needed(found.manifests), *await self._uses.known(before)}
        gone = {digest: each for digest, each in old.items() if digest not in stay}
        links = [link for link in found.links if link.digest in gone]
        await self._forget_tags([link for link in links if link.tag is not None])
        await self._delete([link.key for link in links if link.tag is None])
        await self._delete([each.key for each in gone.values()])
        return Aged(len(gone), sum(each.size for each in gone.values()))

    async def _needed(self, manifests: frozenset[Digest]) -> set[Digest]:
        """What these refer to, and what that does."""
        needed: set[Digest] = set()
        unread = set(manifests)
        while unread:
            manifest = unread.pop()
            read = await self._bucket.read(layout.data(manifest))
            parts = parse_parts(read[0]) if read else None
            if parts is not None:
                unread |= set(parts.manifests) - manifests - needed
                needed |= {*parts.blobs, *parts.manifests}
        return needed

    async def _forget_tags(self, links: Sequence[Linked]) -> None:
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
class _Found:
    """The manifests that are not old, and the links to what is."""

    manifests: frozenset[Digest]
    links: Sequence[Linked]


def _old(before: float, used: Mapping[Digest, float], listed: Iterator[Listed]) -> Mapping[Digest, Listed]:
    """What was neither put nor used since."""
    contents = inventory.contents(each for each in listed if each.modified < before)
    return {digest: each for digest, each in contents if digest not in used}


def _found(old: Mapping[Digest, Listed], listed: Iterator[Listed]) -> _Found:
    manifests, links = set(), []
    for link in inventory.links(listed):
        if link.digest in old:
            links.append(link)
        elif link.manifest:
            manifests.add(link.digest)
    return _Found(frozenset(manifests), links)
