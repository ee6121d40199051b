"""Requests to pull images into the cache, a file for each; all calls block."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from secrets import token_hex
from typing import Any, Literal, get_args

from attrs import evolve, frozen

from ..config.notation import format_duration
from ..oci.errors import RegistryError, TooManyRequests
from ..oci.manifest import Platform
from ..oci.request import Reference, Repository, image_name, parse_reference
from ..system.times import format_timestamp, parse_seconds
from . import files, layout

State = Literal["waiting", "running", "done", "failed"]
_STATES: Mapping[str, State] = {each: each for each in get_args(State)}
_MALFORMED = (
    ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, RegistryError
)  # fmt: skip


@frozen
class WarmUp:
    """A request to pull an image into the cache.

    :ivar refresh: True to ask the upstream first what the tag names, however fresh the cache's copy is.
    :ivar created: when it was requested, in seconds since the epoch; ``changed``, when it last changed.
    :ivar error: says why it failed.
    :ivar held: of a finished pull, the blobs that the cache had already; ``fetched``, the others.
    :ivar bytes: the size of those that were fetched.
    :ivar tag_only: True to ask only what the tag names, and to pull no blobs.
    :ivar digest: what it names, once the upstream has been asked; empty for a pull.
    """

    id: str
    repository: Repository
    reference: Reference
    created: float
    platforms: tuple[Platform, ...] = ()
    referrers: bool = False
    refresh: bool = False
    changed: float = 0.0
    state: State = "waiting"
    error: str = ""
    manifests: int = 0
    held: int = 0
    fetched: int = 0
    bytes: int = 0
    tag_only: bool = False
    digest: str = ""

    @property
    def queue(self) -> WarmUpQueue:
        return TAG_REFRESHES if self.tag_only else PULLS

    @property
    def image(self) -> str:
        return image_name(self.repository, self.reference)

    @property
    def is_finished(self) -> bool:
        return self.state in ("done", "failed")

    def fields(self) -> dict[str, Any]:
        """Return the warm-up as JSON has it."""
        return {
            "id": self.id,
            "image": self.image,
            "platforms": list(map(str, self.platforms)),
            "referrers": self.referrers,
            "refresh": self.refresh,
            "created": format_timestamp(self.created),
            "state": self.state,
            "manifests": self.manifests,
            "held": self.held,
            "fetched": self.fetched,
            "bytes": self.bytes,
            "error": self.error or None,
            "tag_only": self.tag_only,
            "digest": self.digest or None,
        }


@frozen
class WarmUpQueue:
    """A directory of warm-ups, which are run apart from those of the other queue.

    :ivar noun: what messages call its warm-ups.
    :ivar limit: the number of warm-ups that are remembered at a time.
    :ivar keep: seconds for which a finished one is remembered.
    :ivar jobs: how many are run at a time.
    """

    noun: str
    directory: PurePosixPath
    lock: PurePosixPath
    limit: int
    keep: float
    jobs: int


PULLS = WarmUpQueue("warm-ups", layout.WARM_UPS, layout.WARM_UPS_LOCK, 1000, 24 * 3600.0, 1)
TAG_REFRESHES = WarmUpQueue("tag refreshes", layout.TAG_REFRESHES, layout.TAG_REFRESHES_LOCK, 5000, 600.0, 16)
_QUEUES = (PULLS, TAG_REFRESHES)


def add_warm_up(root: Path, warm_up: WarmUp) -> WarmUp:
    """Request a pull, which a running mirror begins within seconds; return it with its identifier.

    :raises TooManyRequests: while too many are remembered.
    :raises OSError: when it cannot be written.
    """
    queue = warm_up.queue
    _delete_old(root, queue, warm_up.created)
    if len(files.list_names(root / queue.directory)) >= queue.limit:
        raise TooManyRequests(
            f"{queue.limit} {queue.noun} wait or have ended in the last {format_duration(queue.keep)}; try"
            " again later",
            retry_after="60",
        )
    added = evolve(warm_up, id=token_hex(8), changed=warm_up.created)
    write_warm_up(root, added)
    return added


def write_warm_up(root: Path, warm_up: WarmUp) -> None:
    """:raises OSError: when it cannot be written."""
    fields = {
        **warm_up.fields(),
        "repository": str(warm_up.repository),
        "reference": str(warm_up.reference),
        "created": warm_up.created,
        "changed": warm_up.changed,
    }
    path = root / layout.warm_up(warm_up.queue.directory, warm_up.id)
    files.replace_file(path, json.dumps(fields).encode(), root / layout.TEMPORARY, warm_up.changed)


def read_warm_up(root: Path, identifier: str) -> WarmUp | None:
    """Return a warm-up; None if there is none of that identifier, or its file is malformed."""
    return next((found for queue in _QUEUES if (found := _read(root, queue, identifier))), None)


def _read(root: Path, queue: WarmUpQueue, identifier: str) -> WarmUp | None:
    """Read a warm-up; None also for a file that its next state would not be written to."""
    file = files.read_small_file(root / layout.warm_up(queue.directory, identifier))
    found = _parse(file.data) if file else None
    return found if found and (found.queue, found.id) == (queue, identifier) else None


def iter_warm_ups(root: Path, *queues: WarmUpQueue) -> Iterator[WarmUp]:
    """Iterate over the warm-ups of these queues, or of all, the oldest first."""
    read = (
        _read(root, queue, name)
        for queue in queues or _QUEUES
        for name in files.list_names(root / queue.directory)
    )
    yield from sorted((each for each in read if each), key=_age)


class UnfinishedWarmUps:
    """The warm-ups of a queue that are to be run, or were interrupted; finished ones are read once."""

    def __init__(self, root: Path, queue: WarmUpQueue) -> None:
        self._root = root
        self._queue = queue
        self._finished: set[str] = set()

    def exist(self) -> bool:
        return next(self._iterate(()), None) is not None

    def list(self, known: Collection[str]) -> list[WarmUp]:
        """Return those whose identifiers are not known yet, the oldest first."""
        return sorted(self._iterate(known), key=_age)

    def _iterate(self, known: Collection[str]) -> Iterator[WarmUp]:
        names = files.list_names(self._root / self._queue.directory)
        self._finished.intersection_update(names)
        for name in names:
            if name in self._finished or name in known:
                continue
            found = _read(self._root, self._queue, name)
            if found is None or found.is_finished:
                self._finished.add(name)
            else:
                yield found


def _age(warm_up: WarmUp) -> tuple[float, str]:
    return warm_up.created, warm_up.id


def lock_warm_ups(root: Path, queue: WarmUpQueue) -> int | None:
    """Lock running until the returned file is closed; None if another process has the lock."""
    return files.lock(root / queue.lock)


def _delete_old(root: Path, queue: WarmUpQueue, now: float) -> None:
    """Delete what has ended long ago; a file is modified when its warm-up changes."""
    for name in files.list_names(root / queue.directory):
        with suppress(FileNotFoundError):
            if 0 <= now - os.stat(root / queue.directory / name).st_mtime < queue.keep:
                continue
        found = _read(root, queue, name)
        if found is None or found.is_finished:
            files.remove(root / queue.directory / name)


def _parse(data: bytes) -> WarmUp | None:
    try:
        stored = json.loads(data)
        return WarmUp(
            str(stored["id"]),
            Repository.parse(stored["repository"]),
            parse_reference(stored["reference"]),
            parse_seconds(stored["created"]),
            tuple(map(Platform.parse, stored["platforms"])),
            bool(stored["referrers"]),
            bool(stored["refresh"]),
            parse_seconds(stored["changed"]),
            _STATES[stored["state"]],
            str(stored["error"] or ""),
            int(stored["manifests"]),
            int(stored["held"]),
            int(stored["fetched"]),
            int(stored["bytes"]),
            bool(stored.get("tag_only")),
            str(stored.get("digest") or ""),
        )
    except _MALFORMED:
        return None
