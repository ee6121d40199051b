"""What goes from a bucket: what nobody has used for long."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import PurePosixPath
from secrets import token_hex

from attrs import frozen
from twisted.application.service import MultiService
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ...concurrency.periodic_task import PeriodicTask
from ...concurrency.ttl_cache import TTLCache
from ...oci.digest import Digest
from ...oci.errors import DigestInvalid
from ...oci.media import parse_references
from .. import layout
from .blocking_bucket import ListedObject
from .bucket import Bucket

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
        if not await self._bucket.put_new(layout.EXPIRY_RUNS / str(today), b""):
            return None
        earlier = await self._bucket.list(layout.EXPIRY_RUNS)
        await self._delete([each.key for each in earlier if not each.key.endswith(f"/{today}")])
        return await self._clean()

    async def _clean(self) -> ExpiryResult:
        before = self._clock.seconds() - self._age
        used = await self._uses.load(before)
        old = await self._bucket.scan(layout.BLOBS, partial(_old, before, used))
        found = await self._bucket.scan(layout.REPOSITORIES, partial(_found, old))
        stay = {*await self._needed(found.manifests), *await self._uses.load(before)}
        gone = {digest: each for digest, each in old.items() if digest not in stay}
        links = [link for link in found.links if link.digest in gone]
        await self._forget_tags([link for link in links if link.tag_directory is not None])
        await self._delete([link.key for link in links if link.tag_directory is None])
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
            assert link.tag_directory is not None
            current: PurePosixPath = link.tag_directory / layout.TAG_LINK
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
    contents = parse_contents(each for each in listed if each.modified < before)
    return {digest: each for digest, each in contents if digest not in used}


def _found(old: Mapping[Digest, ListedObject], listed: Iterator[ListedObject]) -> _RecentManifests:
    manifests, links = set(), []
    for link in parse_links(listed):
        if link.digest in old:
            links.append(link)
        elif link.is_manifest:
            manifests.add(link.digest)
    return _RecentManifests(frozenset(manifests), links)


_DATA = len(layout.BLOBS.parts)


@frozen
class BucketLink:
    """A link to a content.

    :ivar tag: the directory of the tag that has named it, where it is of a tag.
    :ivar manifest: whether it is one of a repository's manifests.
    """

    key: str
    digest: Digest
    tag_directory: PurePosixPath | None
    is_manifest: bool


def parse_contents(listed: Iterable[ListedObject]) -> Iterator[tuple[Digest, ListedObject]]:
    """The contents, of what lies below ``layout.BLOBS``."""
    for each in listed:
        parts = PurePosixPath(each.key).parts[_DATA:]
        if len(parts) == 4 and parts[3] == "data" and (digest := _digest(parts[0], parts[2])):
            yield digest, each


def parse_links(listed: Iterable[ListedObject]) -> Iterator[BucketLink]:
    """The links whose names say what they are to, of what lies below ``layout.REPOSITORIES``."""
    for each in listed:
        path = PurePosixPath(each.key)
        if path.name != "link" or len(path.parts) < 6:
            continue
        above, (algorithm, hexadecimal) = path.parents[2], path.parts[-3:-1]
        digest = _digest(algorithm, hexadecimal)
        if digest is not None:
            tag = above.parent if above.name == layout.TAG_HISTORY.name else None
            yield BucketLink(each.key, digest, tag, above.name == layout.REVISIONS.name)


def _digest(algorithm: str, hexadecimal: str) -> Digest | None:
    try:
        return Digest.parse(f"{algorithm}:{hexadecimal}")
    except DigestInvalid:
        return None


RECORD_INTERVAL = 6 * 3600.0
"""Seconds for which a use that was told stands for those that follow."""
_MOST = 1_000_000


class LastUsedJournal:
    """Objects of lines, each with a content and when it was used; whoever cleans makes one of them."""

    def __init__(self, bucket: Bucket, clock: IReactorTime) -> None:
        self._bucket = bucket
        self._clock = clock
        self._told: TTLCache[Digest, bool] = TTLCache(clock, _MOST)
        self._untold: dict[Digest, float] = {}

    def record(self, digest: Digest) -> None:
        """The content is used now."""
        if not self._told.get(digest):
            self._told.put(digest, True, RECORD_INTERVAL)
            self._untold[digest] = self._clock.seconds()

    async def flush(self) -> None:
        """Tells what was noted.

        :raises OSError: when the bucket takes nothing; it is told the next time then.
        """
        if not self._untold:
            return
        untold, self._untold = self._untold, {}
        try:
            await self._bucket.put(layout.LAST_USED / token_hex(8), _written(untold))
        except BaseException:
            self._untold = {**untold, **self._untold}
            raise

    async def load(self, since: float) -> Mapping[Digest, float]:
        """When each content was used last, by any mirror, where that was not before; told as one from now on.

        :raises OSError: when the bucket does not give or take it.
        """
        found: dict[Digest, float] = {}
        told = [each.key for each in await self._bucket.list(layout.LAST_USED)]
        for key in told:
            read = await self._bucket.read(layout.LAST_USED / key.rpartition("/")[2])
            for digest, used in _read(read[0] if read else b""):
                found[digest] = max(used, found.get(digest, 0.0))
        found = {digest: used for digest, used in found.items() if used >= since}
        if len(told) > 1:
            await self._bucket.put(layout.LAST_USED / token_hex(8), _written(found))
            for first in range(0, len(told), _AT_ONCE):
                await self._bucket.delete(told[first : first + _AT_ONCE])
        return found


def _written(uses: Mapping[Digest, float]) -> bytes:
    return "".join(f"{digest} {used:.0f}\n" for digest, used in uses.items()).encode()


def _read(data: bytes) -> list[tuple[Digest, float]]:
    found = []
    for line in data.decode("ascii", "replace").splitlines():
        digest, _, used = line.partition(" ")
        with suppress(DigestInvalid, ValueError):
            found.append((Digest.parse(digest), float(used)))
    return found


FLUSH_INTERVAL = 60.0
"""Seconds between two times that the bucket is told."""
EXPIRY_CHECK_INTERVAL = 3600.0
"""Seconds between two looks at whether it was cleaned today."""
_log = Logger()


class BucketMaintenance(MultiService):
    """Does both now and then; what the bucket does not take is tried the next time, and told of by itself.

    Nothing is asked before the mirror has served for a while; the uses of the last minute are told by nobody.
    """

    def __init__(self, uses: LastUsedJournal, aging: BucketExpiry, clock: IReactorTime) -> None:
        super().__init__()
        self._uses = uses
        self._aging = aging
        for work, period in ((self._tell, FLUSH_INTERVAL), (self._look, EXPIRY_CHECK_INTERVAL)):
            PeriodicTask(work, period, clock, "the bucket cannot be cleaned").setServiceParent(self)

    async def _tell(self) -> None:
        with suppress(OSError):
            await self._uses.flush()

    async def _look(self) -> None:
        with suppress(OSError):
            await self._uses.flush()
            aged = await self._aging.run()
            if aged is not None:
                _log.info(
                    "the bucket is rid of {contents} contents of {size} bytes that nobody has used",
                    contents=aged.contents, size=aged.bytes,
                )  # fmt: skip
