"""The histories of tags that mirrors share: local files, merged with objects in the bucket."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from ...concurrency.coroutines import SingleFlight, TTLCache
from ...concurrency.periodic_task import PeriodicTask
from ...interfaces import ITagHistory, Sighting
from ...oci.digest import Digest
from ...oci.errors import RegistryError
from ...oci.request import Repository, Tag
from .. import layout
from ..tag_history import Key, LocalTagHistory, TagRecord
from .bucket import Bucket, BucketUnavailable

CHECK_INTERVAL = 600.0
"""Seconds after which what other mirrors have seen of a tag is read again."""
UPLOAD_INTERVAL = 60.0
"""Seconds after which changed histories are uploaded."""
EXTENSION_INTERVAL = 3600.0
"""Seconds after which a history is uploaded that only extends its last sighting."""
_MAX_CACHED = 100_000


@implementer(ITagHistory)
class TieredTagHistory:
    """Local histories; those of other mirrors are merged into them, and both are uploaded.

    A tag without a local history waits for the bucket, so that no mirror takes a new digest for the first;
    while the bucket fails, its sightings are not recorded.
    """

    def __init__(self, local: LocalTagHistory, bucket: Bucket, clock: IReactorTime) -> None:
        self._local = local
        self._bucket = bucket
        self._checked: TTLCache[Key, bool] = TTLCache(clock, _MAX_CACHED)
        self._uploaded: TTLCache[Key, Digest | None] = TTLCache(clock, _MAX_CACHED)
        self._look_ups: SingleFlight[Key, None] = SingleFlight()
        self._changed: dict[Key, None] = {}
        self.uploads = PeriodicTask(self.upload, UPLOAD_INTERVAL, clock, "cannot upload histories of tags")

    async def record(
        self, upstream: str, repository: Repository, tag: Tag, digest: Digest, seen: float
    ) -> None:
        try:
            await self._check((upstream, repository, tag))
        except BucketUnavailable:  # logged by the bucket
            return
        await self._local.record(upstream, repository, tag, digest, seen)
        await self._mark_changed((upstream, repository, tag))

    async def record_push(
        self, upstream: str, repository: Repository, tag: Tag, digest: Digest, pushed: float
    ) -> None:
        await self._local.record_push(upstream, repository, tag, digest, pushed)
        self._changed[upstream, repository, tag] = None

    async def record_pull(self, upstream: str, repository: Repository, tag: Tag, now: float) -> None:
        await self._local.record_pull(upstream, repository, tag, now)
        await self._mark_changed((upstream, repository, tag))

    async def sightings(self, upstream: str, repository: Repository, tag: Tag) -> Sequence[Sighting]:
        await self._check((upstream, repository, tag))
        return await self._local.sightings(upstream, repository, tag)

    async def last_pull(self, upstream: str, repository: Repository, tag: Tag) -> float:
        await self._check((upstream, repository, tag))
        return await self._local.last_pull(upstream, repository, tag)

    async def tags(
        self, upstream: str, repository: Repository | None = None
    ) -> Sequence[tuple[Repository, Tag]]:
        """Return the tags of which any mirror has a history; of one repository, those that are local."""
        if repository is not None:
            return await self._local.tags(upstream, repository)
        listed = await self._bucket.list(layout.TAG_HISTORIES / upstream)
        theirs = [key for each in listed if (key := _parse_key(each.key, upstream)) is not None]
        return sorted({*theirs, *await self._local.tags(upstream)})

    async def version(self, upstream: str, repository: Repository) -> object | None:
        return await self._local.version(upstream, repository)

    async def upload(self) -> None:
        """Upload the histories that have changed; those that fail are uploaded the next time."""
        changed, self._changed = self._changed, {}
        while changed:
            key = next(iter(changed))
            try:
                merged = await self._fetch(key)
                await self._bucket.put(layout.tag_sightings(*key), bytes(merged))
            except OSError:  # logged by the bucket
                self._changed = {**changed, **self._changed}
                return
            del changed[key]
            self._uploaded.put(key, _last_digest(merged), EXTENSION_INTERVAL)

    async def _mark_changed(self, key: Key) -> None:
        """Upload the history soon if the tag has moved, or if that was done some time ago."""
        uploaded = self._uploaded.get(key)
        if uploaded is None or uploaded != _last_digest(await self._local.read(key)):
            self._changed[key] = None

    async def _check(self, key: Key) -> None:
        """Merge what other mirrors have seen, from time to time; only a tag without a history waits."""
        if self._checked.get(key):
            return
        checking = Deferred.fromCoroutine(self._look_ups.get(key, lambda: self._look_up(key)))
        if not (await self._local.read(key)).sightings:
            await checking
        else:
            checking.addErrback(lambda _: None)

    async def _look_up(self, key: Key) -> None:
        if not self._checked.get(key):
            await self._fetch(key)
            self._checked.put(key, True, CHECK_INTERVAL)

    async def _fetch(self, key: Key) -> TagRecord:
        """Merge the bucket's history into the local one, and return it."""
        read = await self._bucket.read(layout.tag_sightings(*key))
        if read is None:
            return await self._local.read(key)
        remote = TagRecord.parse(read[0])
        return await self._local.update(key, _merge_into(remote))


def _merge_into(remote: TagRecord) -> Callable[[TagRecord], TagRecord]:
    return lambda local: local.merge(remote)


def _last_digest(record: TagRecord) -> Digest | None:
    return record.sightings[-1].digest if record.sightings else None


def _parse_key(path: str, upstream: str) -> tuple[Repository, Tag] | None:
    """Return the tag of an object's key; None for a key that is none."""
    name = PurePosixPath(path)
    try:
        directory = name.parent.relative_to(layout.TAG_HISTORIES / upstream)
        return Repository.parse(str(directory.parent)), Tag.parse(name.name)
    except (ValueError, RegistryError):
        return None
