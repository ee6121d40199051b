"""An index in memory of what a store holds, and the space that each registry takes, measured with it."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from attrs import asdict, define, evolve, frozen
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..concurrency.coroutines import RunInThread, SingleFlight, TTLCache
from ..oci.digest import Digest
from ..status import RegistryUsage, Usage
from . import files, layout, store_files

T = TypeVar("T")
_SETTLING = 2.0
"""Seconds after a directory's last change in which another change might not show in its times."""


@frozen
class HeldBytes:
    """The bytes that a registry or a repository holds.

    :ivar shared: bytes that others hold, too.
    :ivar contents: the number of blobs and manifests.
    """

    bytes: int
    shared: int
    contents: int


@frozen
class RepositoryContents:
    """The contents that a repository links to; a link whose bytes are gone counts for nothing."""

    manifests: frozenset[Digest]
    blobs: frozenset[Digest]

    @property
    def all(self) -> frozenset[Digest]:
        return self.manifests | self.blobs


@frozen
class StoreSnapshot:
    """The contents of a store and of its repositories at one time.

    :ivar sizes: the bytes of each content, by the directories in which they lie: algorithm and prefix.
    :ivar repositories: by name, which begins with the registry.
    :ivar other_bytes: those of documents and of downloads.
    """

    sizes: Mapping[tuple[str, str], Mapping[Digest, int]]
    repositories: Mapping[str, RepositoryContents]
    other_bytes: int

    def size_of(self, digest: Digest) -> int | None:
        """Return the bytes of a content; None if it is not held."""
        return self.sizes.get((digest.algorithm, digest.hex[:2]), {}).get(digest)

    @cached_property
    def held_bytes(self) -> int:
        """All bytes of the store."""
        return sum(sum(part.values()) for part in self.sizes.values()) + self.other_bytes

    @cached_property
    def names(self) -> Sequence[str]:
        """The repositories that hold something, sorted."""
        return sorted(
            name
            for name, each in self.repositories.items()
            if any(self.size_of(digest) is not None for digest in chain(each.manifests, each.blobs))
        )

    def bytes_of(self, name: str) -> int:
        """Return the bytes of a repository's contents."""
        return sum(self.size_of(digest) or 0 for digest in self.repositories[name].all)

    @cached_property
    def names_by_registry(self) -> Mapping[str, Sequence[str]]:
        found: dict[str, list[str]] = {}
        for name in self.names:
            found.setdefault(name.partition("/")[0], []).append(name)
        return found

    @cached_property
    def by_repository(self) -> Mapping[str, HeldBytes]:
        return self._sum_up({name: each.all for name, each in self.repositories.items()})

    @cached_property
    def by_registry(self) -> Mapping[str, HeldBytes]:
        contents: dict[str, set[Digest]] = {}
        for name, each in self.repositories.items():
            contents.setdefault(name.partition("/")[0], set()).update(each.all)
        return self._sum_up(contents)

    def _sum_up(self, contents: Mapping[str, frozenset[Digest] | set[Digest]]) -> Mapping[str, HeldBytes]:
        """Return the bytes of each name that holds any."""
        counts = Counter(digest for each in contents.values() for digest in each)
        sums = {name: self._count(each, counts) for name, each in contents.items()}
        return {name: each for name, each in sums.items() if each.contents}

    def _count(self, contents: frozenset[Digest] | set[Digest], counts: Counter[Digest]) -> HeldBytes:
        sizes = {digest: size for digest in contents if (size := self.size_of(digest)) is not None}
        shared = sum(size for digest, size in sizes.items() if counts[digest] > 1)
        return HeldBytes(sum(sizes.values()), shared, len(sizes))


@define
class _Listing:
    """The content of a directory, and the version of the directory; None if it may have changed since."""

    version: tuple[int, int, int] | None
    value: Any


class StoreIndex:
    """Follows a store's directory, whichever process or program changes it.

    A file's appearance or removal changes the modification time of its directory, so only directories with
    another time are listed again: a store of a thousand repositories takes some milliseconds.  A time is not
    trusted until it is two seconds old, because a second change could bear the same one.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listings: dict[str, _Listing] = {}
        self._seen: set[str] = set()
        self._lock = Lock()
        self._has_changed = True
        self._snapshot = StoreSnapshot({}, {}, 0)

    def snapshot(self, check: Callable[[], None] = lambda: None) -> StoreSnapshot:
        """Return what the store holds now; blocks.

        :param check: called often; it may raise an exception to stop.
        """
        with self._lock:
            self._seen = set()
            sizes = dict(self._list_sizes(check))
            repositories = dict(self._list_repositories(check))
            other = (
                sum(self._read(str(self.root / layout.DOCUMENTS), _read_files, ())) + self._count_downloads()
            )
            for path in self._listings.keys() - self._seen:
                del self._listings[path]
                self._has_changed = True
            if self._has_changed or other != self._snapshot.other_bytes:
                self._snapshot = StoreSnapshot(sizes, repositories, other)
                self._has_changed = False
            return self._snapshot

    def _list_sizes(
        self, check: Callable[[], None]
    ) -> Iterator[tuple[tuple[str, str], Mapping[Digest, int]]]:
        top = str(self.root / layout.BLOBS)
        for algorithm in self._names(top):
            for prefix in self._names(f"{top}/{algorithm}"):
                check()
                yield (algorithm, prefix), self._read(f"{top}/{algorithm}/{prefix}", _read_sizes, {})

    def _list_repositories(self, check: Callable[[], None]) -> Iterator[tuple[str, RepositoryContents]]:
        top = str(self.root / layout.REPOSITORIES)
        queue = [""]
        while queue:
            check()
            name = queue.pop()
            with suppress(OSError):  # eviction says which repository cannot be read
                nested, is_repository = self._read(
                    f"{top}/{name}" if name else top, _read_repository, _NO_REPOSITORY
                )
                if nested:
                    queue += [f"{name}/{each}" for each in nested] if name else nested
                if name and is_repository:
                    manifests = self._links(f"{top}/{name}/{layout.REVISIONS}")
                    yield name, RepositoryContents(manifests, self._links(f"{top}/{name}/{layout.LAYERS}"))

    def _links(self, directory: str) -> frozenset[Digest]:
        parts = [
            self._read(f"{directory}/{each}", _read_links, frozenset()) for each in self._names(directory)
        ]
        return parts[0] if len(parts) == 1 else frozenset[Digest]().union(*parts)

    def _count_downloads(self) -> int:
        return sum(file.size for _, file in store_files.iter_downloads(self.root))

    def _names(self, directory: str) -> list[str]:
        return self._read(directory, _read_names, [])

    def _read(self, path: str, read: Callable[[str], tuple[T, bool]], default: Any) -> T:
        """Return what ``read`` makes of a directory, which is called only if that may have changed.

        :param read: returns the value, and whether it is certain not to change without the directory.
        """
        try:
            status = os.stat(path)
            version = (status.st_ino, status.st_mtime_ns, status.st_nlink)
            known = self._listings.get(path)
            self._seen.add(path)
            if known is not None and known.version == version:
                return known.value  # type: ignore[no-any-return]  # what this ``read`` made
            began = time.time()
            value, is_certain = read(path)
        except (FileNotFoundError, NotADirectoryError):
            self._seen.discard(path)
            return default  # type: ignore[no-any-return]
        is_settled = is_certain and began - status.st_mtime >= _SETTLING
        if known is None or known.value != value:
            self._has_changed = True
        self._listings[path] = _Listing(version if is_settled else None, value)
        return value


def _read_names(directory: str) -> tuple[list[str], bool]:
    return sorted(os.listdir(directory)), True


_NO_REPOSITORY: tuple[list[str], bool] = ([], False)


def _read_repository(directory: str) -> tuple[tuple[list[str], bool], bool]:
    """Return the directories that may be repositories, too, and whether this one is a repository."""
    names = sorted(os.listdir(directory))
    nested = [each for each in names if not each.startswith("_")]
    return (nested, len(nested) < len(names)), True


def _read_sizes(directory: str) -> tuple[Mapping[Digest, int], bool]:
    """Return the size of each content; not certain while one has a directory, but no bytes yet."""
    algorithm = os.path.basename(os.path.dirname(directory))
    names = os.listdir(directory)
    found = ((name, store_files.stat_file(f"{directory}/{name}/data")) for name in names)
    sizes = {
        digest: stored.size
        for name, stored in found
        if stored and (digest := layout.parse_digest(algorithm, name))
    }
    return sizes, len(sizes) == len(names)


def _read_links(directory: str) -> tuple[frozenset[Digest], bool]:
    algorithm = os.path.basename(directory)
    parsed = (layout.parse_digest(algorithm, name) for name in os.listdir(directory))
    return frozenset(filter(None, parsed)), True


def _read_files(directory: str) -> tuple[tuple[int, ...], bool]:
    with os.scandir(directory) as entries:
        return tuple(entry.stat().st_size for entry in entries if entry.is_file()), True


MIN_INTERVAL = 1.0
"""Seconds for which a measurement is fresh, at least."""
COST_FACTOR = 10
"""A measurement is fresh for this many times its own duration, at least."""
MAX_WAIT = 2.0
"""Seconds that a caller waits; then the previous measurement is returned, with its age."""
_FAILURE_INTERVAL = 600.0
"""Seconds without measurements after one has failed."""
_MAX_FILE_SIZE = 1024 * 1024


class MeasurementStopped(Exception):
    """Raised to end a measurement when the mirror stops."""


class UsageReport:
    """Measures on demand; a fresh measurement by another process is used instead.

    :ivar index: brought up to date by each measurement here.
    """

    _log = Logger()

    def __init__(self, root: Path, clock: IReactorTime, in_thread: RunInThread) -> None:
        self.index = StoreIndex(root)
        self._root = root
        self._clock = clock
        self._in_thread = in_thread
        self._latest: Usage | None = None
        self._is_fresh: TTLCache[None, bool] = TTLCache(clock, 1)
        self._flight: SingleFlight[None, None] = SingleFlight()
        self._measuring = self._stopping = False

    async def latest(self) -> Usage | None:
        """Return the current usage, or the previous one if measuring takes long."""
        if not self._stopping and not self._is_fresh.get(None):
            measured = Deferred.fromCoroutine(self._flight.get(None, self._measure))
            with suppress(TimeoutError):
                await measured.addTimeout(MAX_WAIT, self._clock)
        return self._latest

    async def stop(self) -> None:
        """Stop measuring; fires when no measurement is under way any more."""
        self._stopping = True
        if self._measuring:
            await self._flight.get(None, self._measure)

    async def _measure(self) -> None:
        self._measuring = True
        measure = partial(_measure_unless_fresh, self._root, self.index, self._clock.seconds(), self._check)
        interval = MIN_INTERVAL
        try:
            self._latest = await self._in_thread(measure) or self._latest
        except MeasurementStopped:
            pass
        except Exception:
            interval = _FAILURE_INTERVAL
            self._log.failure("cannot measure the space that each registry takes")
        self._is_fresh.put(None, True, interval)
        self._measuring = False

    def _check(self) -> None:
        if self._stopping:
            raise MeasurementStopped


def _measure_unless_fresh(
    root: Path, index: StoreIndex, now: float, check: Callable[[], None]
) -> Usage | None:
    """Return a fresh measurement; None while another process measures."""
    file = files.lock(root / layout.USAGE_REPORT)
    if file is None:
        return None
    try:
        previous = _parse_usage(os.pread(file, _MAX_FILE_SIZE, 0))
        if previous is not None:
            lifetime = max(MIN_INTERVAL, COST_FACTOR * previous.took)
            if 0 <= now - previous.measured < lifetime:
                return previous
        disk = os.statvfs(root)
        usage = evolve(measure_usage(index, now, check), free=disk.f_bavail * disk.f_frsize)
        with suppress(OSError):  # on a full disk each process measures for itself
            os.ftruncate(file, 0)
            os.pwrite(file, json.dumps(asdict(usage)).encode(), 0)
        return usage
    finally:
        os.close(file)


def measure_usage(index: StoreIndex, now: float, check: Callable[[], None] = lambda: None) -> Usage:
    """Bring the index up to date, and sum it up; ``check`` is called often and may raise to stop."""
    started = time.monotonic()
    held = index.snapshot(check)
    registries = (
        RegistryUsage(name, each.bytes, each.shared, each.contents) for name, each in held.by_registry.items()
    )
    ordered = sorted(registries, key=lambda each: (-each.bytes, each.registry))
    return Usage(now, time.monotonic() - started, tuple(ordered), held.held_bytes)


def _parse_usage(text: bytes) -> Usage | None:
    """Parse a stored measurement; None if it is missing or incomplete."""
    try:
        return Usage.from_json(json.loads(text))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
