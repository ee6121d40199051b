"""Delete contents from a bucket that have not been used for long."""

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

from ...concurrency.coroutines import TTLCache
from ...concurrency.periodic_task import PeriodicTask
from ...oci.digest import Digest
from ...oci.errors import DigestInvalid
from ...oci.manifest import parse_references
from .. import layout
from .blocking_bucket import ListedObject
from .bucket import Bucket

DAY = 24 * 3600.0


@frozen
class ExpiryResult:
    """The number of deleted contents, and their size."""

    contents: int
    bytes: int


class BucketExpiry:
    """Deletes contents that were neither put nor used for some time; one mirror a day does it.

    A manifest that stays keeps what it refers to. Links are deleted before contents; a link that is written
    meanwhile may outlive its content, has no effect then, and is deleted with the content the next time.

    :param age: in seconds; contents used during the last day stay in any case.
    """

    def __init__(self, bucket: Bucket, journal: LastUsedJournal, clock: IReactorTime, age: float) -> None:
        self._bucket = bucket
        self._journal = journal
        self._clock = clock
        self._age = max(DAY, age)

    async def run(self) -> ExpiryResult | None:
        """Delete expired contents; None if a mirror has done so today.

        :raises OSError: if the bucket fails; the rest is left for the next day.
        """
        today = int(self._clock.seconds() // DAY)
        if not await self._bucket.put_new(layout.EXPIRY_RUNS / str(today), b""):
            return None
        runs = await self._bucket.list(layout.EXPIRY_RUNS)
        await self._bucket.delete([each.key for each in runs if not each.key.endswith(f"/{today}")])
        return await self._expire()

    async def _expire(self) -> ExpiryResult:
        limit = self._clock.seconds() - self._age
        used = await self._journal.load(limit)
        old = await self._bucket.scan(layout.BLOBS, partial(_select_old, limit, used))
        recent = await self._bucket.scan(layout.REPOSITORIES, partial(_select_links, old))
        needed = {*await self._find_needed(recent.manifests), *await self._journal.load(limit)}
        expired = {digest: each for digest, each in old.items() if digest not in needed}
        links = [link for link in recent.links if link.digest in expired]
        await self._delete_tags([link for link in links if link.tag_directory is not None])
        await self._bucket.delete([link.key for link in links if link.tag_directory is None])
        await self._bucket.delete([each.key for each in expired.values()])
        return ExpiryResult(len(expired), sum(each.size for each in expired.values()))

    async def _find_needed(self, manifests: frozenset[Digest]) -> set[Digest]:
        """Return everything that these manifests refer to."""
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

    async def _delete_tags(self, links: Sequence[BucketLink]) -> None:
        """Delete tags that name an expired manifest; of other tags only their history."""
        for link in links:
            assert link.tag_directory is not None
            tag_link: PurePosixPath = link.tag_directory / layout.TAG_LINK
            read = await self._bucket.read(tag_link)
            keys = [link.key]
            if read is not None and read[0] == str(link.digest).encode():
                keys.insert(0, str(tag_link))
            await self._bucket.delete(keys)


@frozen
class _RecentManifests:
    """The manifests that are not expired, and the links to expired contents."""

    manifests: frozenset[Digest]
    links: Sequence[BucketLink]


def _select_old(
    limit: float, used: Mapping[Digest, float], listed: Iterator[ListedObject]
) -> Mapping[Digest, ListedObject]:
    """Select contents that were neither put nor used since then."""
    contents = parse_contents(each for each in listed if each.modified < limit)
    return {digest: each for digest, each in contents if digest not in used}


def _select_links(old: Mapping[Digest, ListedObject], listed: Iterator[ListedObject]) -> _RecentManifests:
    manifests, links = set(), []
    for link in parse_links(listed):
        if link.digest in old:
            links.append(link)
        elif link.is_manifest:
            manifests.add(link.digest)
    return _RecentManifests(frozenset(manifests), links)


_CONTENT_DEPTH = len(layout.BLOBS.parts)


@frozen
class BucketLink:
    """A link to a content.

    :ivar tag_directory: the directory of the tag, if it belongs to one.
    :ivar is_manifest: True if it is one of a repository's manifests.
    """

    key: str
    digest: Digest
    tag_directory: PurePosixPath | None
    is_manifest: bool


def parse_contents(listed: Iterable[ListedObject]) -> Iterator[tuple[Digest, ListedObject]]:
    """Select the contents from a listing of ``layout.BLOBS``."""
    for each in listed:
        parts = PurePosixPath(each.key).parts[_CONTENT_DEPTH:]
        if len(parts) == 4 and parts[3] == "data" and (digest := layout.parse_digest(parts[0], parts[2])):
            yield digest, each


def parse_links(listed: Iterable[ListedObject]) -> Iterator[BucketLink]:
    """Select the links from a listing of ``layout.REPOSITORIES``."""
    for each in listed:
        path = PurePosixPath(each.key)
        if path.name != "link" or len(path.parts) < 6:
            continue
        above, (algorithm, hexadecimal) = path.parents[2], path.parts[-3:-1]
        digest = layout.parse_digest(algorithm, hexadecimal)
        if digest is not None:
            tag = above.parent if above.name == layout.TAG_HISTORY.name else None
            yield BucketLink(each.key, digest, tag, above.name == layout.REVISIONS.name)


RECORD_INTERVAL = 6 * 3600.0
"""Seconds during which further uses of a content are not recorded."""
_MAX_CACHED = 1_000_000


class LastUsedJournal:
    """Objects in the bucket that record when contents were last used; each mirror writes its own."""

    def __init__(self, bucket: Bucket, clock: IReactorTime) -> None:
        self._bucket = bucket
        self._clock = clock
        self._recorded: TTLCache[Digest, bool] = TTLCache(clock, _MAX_CACHED)
        self._pending: dict[Digest, float] = {}

    def record(self, digest: Digest) -> None:
        """Record a use of the content now."""
        if not self._recorded.get(digest):
            self._recorded.put(digest, True, RECORD_INTERVAL)
            self._pending[digest] = self._clock.seconds()

    async def flush(self) -> None:
        """Write the recorded uses to the bucket.

        :raises OSError: if that fails; they are written the next time then.
        """
        if not self._pending:
            return
        pending, self._pending = self._pending, {}
        try:
            await self._bucket.put(layout.LAST_USED / token_hex(8), _format(pending))
        except BaseException:
            self._pending = {**pending, **self._pending}
            raise

    async def load(self, since: float) -> Mapping[Digest, float]:
        """Return when each content was last used by any mirror, since that time, and compact the journal.

        :raises OSError: if the bucket fails.
        """
        found: dict[Digest, float] = {}
        objects = [each.key for each in await self._bucket.list(layout.LAST_USED)]
        for key in objects:
            read = await self._bucket.read(layout.LAST_USED / key.rpartition("/")[2])
            for digest, used in _parse(read[0] if read else b""):
                found[digest] = max(used, found.get(digest, 0.0))
        found = {digest: used for digest, used in found.items() if used >= since}
        if len(objects) > 1:
            await self._bucket.put(layout.LAST_USED / token_hex(8), _format(found))
            await self._bucket.delete(objects)
        return found


def _format(uses: Mapping[Digest, float]) -> bytes:
    return "".join(f"{digest} {used:.0f}\n" for digest, used in uses.items()).encode()


def _parse(data: bytes) -> list[tuple[Digest, float]]:
    found = []
    for line in data.decode("ascii", "replace").splitlines():
        digest, _, used = line.partition(" ")
        with suppress(DigestInvalid, ValueError):
            found.append((Digest.parse(digest), float(used)))
    return found


FLUSH_INTERVAL = 60.0
"""Seconds between two writes of recorded uses."""
EXPIRY_CHECK_INTERVAL = 3600.0
"""Seconds between two checks whether the bucket was cleaned today."""
_FAILURE = "cannot delete unused contents from the bucket"
_log = Logger()


class BucketMaintenance(MultiService):
    """Writes recorded uses and expires contents, periodically; a failure is retried the next time.

    The first run comes after an interval; uses of the last minute are lost when the mirror stops.
    """

    def __init__(self, journal: LastUsedJournal, expiry: BucketExpiry, clock: IReactorTime) -> None:
        super().__init__()
        self._journal = journal
        self._expiry = expiry
        for task, period in ((self._flush, FLUSH_INTERVAL), (self._check, EXPIRY_CHECK_INTERVAL)):
            PeriodicTask(task, period, clock, _FAILURE).setServiceParent(self)

    async def _flush(self) -> None:
        with suppress(OSError):
            await self._journal.flush()

    async def _check(self) -> None:
        with suppress(OSError):
            await self._journal.flush()
            result = await self._expiry.run()
            if result is not None:
                _log.info(
                    "deleted {contents} unused contents of {size} bytes from the bucket",
                    contents=result.contents, size=result.bytes,
                )  # fmt: skip
