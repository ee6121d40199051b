"""The digests that tags have named over time, on the local disk: a JSON file for each tag.

Several processes share it.  A sighting that only extends the last one is written every five minutes at most.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from attrs import evolve, frozen
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from ..concurrency.coroutines import RunInThread, TTLCache
from ..interfaces import ITagHistory, Sighting
from ..oci.digest import Digest
from ..oci.errors import RegistryError
from ..oci.request import Repository, Tag
from . import files, layout

MAX_AGE = 400 * 86_400.0
"""Seconds for which a sighting is remembered, and a tag that is neither seen nor pulled."""
EXTEND_INTERVAL = 300.0
"""Seconds after which a sighting of the same digest as before is written again."""
PULL_INTERVAL = 86_400.0
"""Seconds after which another pull of a tag is recorded."""
SETTLED_SECONDS = 1.0
"""Seconds after a change in which another one may leave the directory's time as it is."""
MAX_SIGHTINGS = 500
"""Sightings of a tag; beyond them, the shortest are forgotten."""
_MAX_CACHED = 10_000

Key = tuple[str, Repository, Tag]


@frozen
class TagRecord:
    """The sightings of one tag, oldest first, and when a client last asked for it."""

    sightings: tuple[Sighting, ...] = ()
    pulled: float = 0.0

    @classmethod
    def parse(cls, data: bytes) -> TagRecord:
        """Parse a file.

        :raises OSError: when it is malformed: nothing may be admitted by a history that is not known.
        """
        try:
            fields = json.loads(data)
            sightings = tuple(
                Sighting(Digest.parse(digest), float(first), float(last), bool(is_baseline))
                for digest, first, last, is_baseline in fields["sightings"]
            )
            return cls(sightings, float(fields["pulled"]))
        except (ValueError, KeyError, TypeError, RecursionError, RegistryError) as error:
            raise OSError(f"the history of a tag is malformed: {error}") from error

    def __bytes__(self) -> bytes:
        rows = [[str(each.digest), each.first, each.last, each.is_baseline] for each in self.sightings]
        return json.dumps({"pulled": self.pulled, "sightings": rows}).encode()

    def with_sighting(self, digest: Digest, seen: float) -> TagRecord:
        """Return the record with another sighting, which is never older than those before."""
        remembered = self.remembered(seen)
        if not remembered:
            return evolve(self, sightings=(Sighting(digest, seen, seen, is_baseline=True),))
        *earlier, last = self.sightings
        seen = max(seen, last.last)
        if last.digest == digest:
            return evolve(self, sightings=(*earlier, evolve(last, last=seen)))
        return evolve(self, sightings=tuple(_limit([*remembered, Sighting(digest, seen, seen)])))

    @property
    def known(self) -> Sequence[Sighting]:
        """The sightings that count until there is another one; a clock that is ahead forgets none of them."""
        return self.remembered(self.sightings[-1].last) if self.sightings else ()

    def remembered(self, now: float) -> Sequence[Sighting]:
        """Return the sightings that count: recent ones, and older ones that a cool-down may still need."""
        oldest = now - MAX_AGE
        if not self.sightings or max(self.sightings[-1].last, self.pulled) < oldest:
            return ()
        if self.sightings[0].last >= oldest:
            return self.sightings
        needed = _find_last_admitted(self.sightings)
        return [each for at, each in enumerate(self.sightings) if each.last >= oldest or at in needed]

    def with_push(self, digest: Digest, pushed: float) -> TagRecord:
        """Return the record with the time of the first digest's push, unless the tag has moved since."""
        if len(self.sightings) != 1 or self.sightings[0].digest != digest:
            return self
        (only,) = self.sightings
        return evolve(self, sightings=(evolve(only, first=min(only.first, pushed)),))

    def until(self, now: float) -> TagRecord:
        """Return the sightings up to a time, without the pulls; another mirror's clock may be ahead."""
        past = [evolve(each, last=min(each.last, now)) for each in self.sightings if each.first <= now]
        return TagRecord(tuple(past))

    def merge(self, other: TagRecord) -> TagRecord:
        """Return what two mirrors have seen of the tag; a sighting between breaks another one."""
        firsts = [each.sightings[0] for each in (self, other) if each.sightings]
        if len(firsts) < 2:
            sightings = self.sightings or other.sightings
        else:
            baseline = min(firsts, key=lambda each: each.first)
            sightings = tuple(_limit(_merge(self.sightings, other.sightings, baseline)))
        return TagRecord(sightings, max(self.pulled, other.pulled))


def _find_last_admitted(sightings: Sequence[Sighting]) -> set[int]:
    """Return the positions of the last admitted digest by every cool-down, and of what admitted it.

    By one of ``min_age`` seconds, that is the last digest that has lasted so long before; a first digest may
    count as one that has lasted for any time.
    """
    found: set[int] = set()
    for counts_baseline in (True, False):
        longest: dict[Digest, tuple[float, int]] = {}
        admitted_by: list[tuple[float, int]] = []
        for index, each in enumerate(sightings):
            seconds = MAX_AGE if counts_baseline and each.is_baseline else each.last - each.first
            longest[each.digest] = max(longest.get(each.digest, (0.0, 0)), (seconds, index))
            admitted_by.append(longest[each.digest])
        later = -1.0
        for index, (seconds, by) in reversed(list(enumerate(admitted_by))):
            if seconds > later:
                later = seconds
                found |= {index, by}
    return found


def _limit(sightings: list[Sighting]) -> list[Sighting]:
    """Forget the shortest sightings beyond the limit, but none that a cool-down may still need."""
    excess = len(sightings) - MAX_SIGHTINGS
    if excess <= 0:
        return sightings
    needed = {0, *_find_last_admitted(sightings)}
    others = [index for index in range(len(sightings) - 1) if index not in needed]
    shortest = sorted(others, key=lambda index: sightings[index].last - sightings[index].first)[:excess]
    return [each for index, each in enumerate(sightings) if index not in set(shortest)]


def _merge(ours: Sequence[Sighting], theirs: Sequence[Sighting], baseline: Sighting) -> list[Sighting]:
    """Merge by time.

    Each sighting is known to hold at its ends.  Where one of another digest lies between them, the time up to
    that one counts, and the end counts as a new sighting.  Sightings of one mirror are never joined.
    """
    spans = [(source, each) for source, part in enumerate((ours, theirs)) for each in part]
    ends = sorted(
        ((time, kind, source, span) for source, span in spans for time, kind in _ends(span)),
        key=lambda end: end[:2],
    )
    merged: list[Sighting] = []
    joined: dict[int, Sighting] = {}
    for time, _, source, span in ends:
        if merged and merged[-1].digest == span.digest and joined.get(source, span) == span:
            merged[-1] = evolve(merged[-1], last=time)
        else:
            if any(each in joined.values() and each.first <= time <= each.last for _, each in spans):
                merged[-1] = evolve(merged[-1], last=time)
            merged.append(Sighting(span.digest, time, time))
            joined = {}
        joined[source] = span
    return [evolve(merged[0], is_baseline=baseline.is_baseline), *merged[1:]]


def _ends(span: Sighting) -> Sequence[tuple[float, int]]:
    """Return the times of both ends; at the same time, what lasted until then comes before what begins."""
    return (span.first, 1), (span.last, 0 if span.first < span.last else 2)


class TagHistoryFiles:
    """The files of all histories; all calls block.

    :param root: the cache directory.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, key: Key) -> Path:
        return self._root / layout.tag_sightings(*key)

    def directory(self, upstream: str, repository: Repository) -> Path:
        """Return the directory of a repository's histories, whose time changes with each of them."""
        return self._root / layout.TAG_HISTORIES / upstream / repository.name / layout.TAGS_OF_HISTORY

    def read(self, key: Key) -> TagRecord:
        """:raises OSError: when the file cannot be read, or is malformed."""
        return self.read_with_version(key)[0]

    def read_with_version(self, key: Key) -> tuple[TagRecord, files.Version | None]:
        """Return the record with the version of its file."""
        path = self.path(key)
        version = files.file_version(path)
        try:
            data = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return TagRecord(), None
        return TagRecord.parse(data), version

    def update(self, key: Key, change: Callable[[TagRecord], TagRecord]) -> TagRecord:
        """Change a record, and return it.

        :raises OSError: when the file cannot be read or written.
        """
        lock = files.wait_for_lock(self._root / layout.TAG_HISTORY_LOCK)
        try:
            record = self.read(key)
            changed = change(record)
            if changed != record:
                files.replace_file(
                    self.path(key), bytes(changed), self._root / layout.TEMPORARY, changed.pulled
                )
            return changed
        finally:
            os.close(lock)

    def iter_tags(self, upstream: str, within: Repository | None = None) -> Iterator[tuple[Repository, Tag]]:
        """Iterate over the tags that have a history, of an upstream or of one of its repositories."""
        top = self._root / layout.TAG_HISTORIES / upstream
        start = top if within is None else self.directory(upstream, within)
        for directory, _, names in os.walk(start):
            path = Path(directory)
            if path.name == layout.TAGS_OF_HISTORY:
                repository = Repository(str(path.parent.relative_to(top)))
                yield from ((repository, Tag(name)) for name in names)


@implementer(ITagHistory)
class LocalTagHistory:
    """The histories in a directory that several processes share."""

    def __init__(self, root: Path, clock: IReactorTime, in_thread: RunInThread) -> None:
        self.files = TagHistoryFiles(root)
        self._clock = clock
        self._in_thread = in_thread
        self._cached: TTLCache[Key, tuple[TagRecord, files.Version | None]] = TTLCache(clock, _MAX_CACHED)

    async def record(
        self, upstream: str, repository: Repository, tag: Tag, digest: Digest, seen: float
    ) -> None:
        key = upstream, repository, tag
        sightings = (await self.read(key)).sightings
        if sightings and sightings[-1].digest == digest and seen - sightings[-1].last < EXTEND_INTERVAL:
            return
        await self.update(key, lambda record: record.with_sighting(digest, seen))

    async def record_push(
        self, upstream: str, repository: Repository, tag: Tag, digest: Digest, pushed: float
    ) -> None:
        await self.update((upstream, repository, tag), lambda record: record.with_push(digest, pushed))

    async def record_pull(self, upstream: str, repository: Repository, tag: Tag, now: float) -> None:
        key = upstream, repository, tag
        if now - (await self.read(key)).pulled >= PULL_INTERVAL:
            await self.update(key, lambda record: evolve(record, pulled=max(record.pulled, now)))

    async def sightings(self, upstream: str, repository: Repository, tag: Tag) -> Sequence[Sighting]:
        return list((await self.read((upstream, repository, tag))).known)

    async def last_pull(self, upstream: str, repository: Repository, tag: Tag) -> float:
        return (await self.read((upstream, repository, tag))).pulled

    async def tags(
        self, upstream: str, repository: Repository | None = None
    ) -> Sequence[tuple[Repository, Tag]]:
        return sorted(await self._in_thread(lambda: list(self.files.iter_tags(upstream, repository))))

    async def version(self, upstream: str, repository: Repository) -> files.Version | None:
        version = files.file_version(self.files.directory(upstream, repository))
        if version is None or abs(self._clock.seconds() - version[-1] / 1e9) < SETTLED_SECONDS:
            return None
        return version

    async def read(self, key: Key) -> TagRecord:
        """Return the record of a tag, from memory if its file has not changed."""
        cached = self._cached.get(key)
        if cached is not None and cached[1] == files.file_version(self.files.path(key)):
            return cached[0]
        found = await self._in_thread(partial(self.files.read_with_version, key))
        self._cached.put(key, found, PULL_INTERVAL)
        return found[0]

    async def update(self, key: Key, change: Callable[[TagRecord], TagRecord]) -> TagRecord:
        return await self._in_thread(partial(self.files.update, key, change))
