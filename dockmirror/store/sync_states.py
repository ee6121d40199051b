"""The states of rules that keep images in sync, a file for each, and their pins; calls with a root block."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Any, Literal, get_args

from attrs import asdict, evolve, frozen

from ..system.times import format_timestamp, parse_seconds
from . import files, layout
from .pins import Pin

Outcome = Literal["waiting", "running", "done", "failed", "paused", "elsewhere"]
_TIMES = ("started", "ended", "next_run")
_COUNTS = ("matched", "synced", "failed", "fetched", "bytes")
_PARSERS: Mapping[str, Callable[[Any], Any]] = {
    "outcome": {each: each for each in get_args(Outcome)}.__getitem__,
    "message": str,
    **dict.fromkeys(_TIMES, parse_seconds),
    **dict.fromkeys(("is_requested", "has_listed"), bool),
    **dict.fromkeys(_COUNTS, int),
}
_MALFORMED = (ValueError, KeyError, TypeError, OverflowError, RecursionError)


@frozen
class SyncState:
    """The state of a rule, as its last run left it.

    :ivar key: identifies the rule; a rule that is changed is another one.
    :ivar name: describes the rule.
    :ivar message: says why the run failed, or paused.
    :ivar started: when the last run began, ``ended`` when it ended, and ``next_run`` when the next one is
        due, in seconds since the epoch.
    :ivar is_requested: True if an operator has asked for the last run, or for the next one if the rule waits;
        that run needs no turn.
    :ivar has_listed: True once the tags were listed, by this mirror or another one of the bucket.
    :ivar matched: of the last run, the images that match; ``synced`` and ``failed``, the number of those that
        were pulled and that could not be; ``fetched`` and ``bytes``, the blobs that the mirror did not have.
    :ivar pins: the images that are pinned for the rule, with the platforms that it wants.
    """

    key: str
    name: str
    outcome: Outcome = "waiting"
    message: str = ""
    started: float = 0.0
    ended: float = 0.0
    next_run: float = 0.0
    is_requested: bool = False
    has_listed: bool = False
    matched: int = 0
    synced: int = 0
    failed: int = 0
    fetched: int = 0
    bytes: int = 0
    pins: tuple[Pin, ...] = ()

    @property
    def is_run_requested(self) -> bool:
        """True until the run ends that an operator has asked for."""
        return self.is_requested and self.outcome in ("waiting", "running", "paused")

    def fields(self) -> dict[str, Any]:
        """Return the state as JSON has it."""
        times = {
            name: format_timestamp(getattr(self, name)) if getattr(self, name) else None for name in _TIMES
        }
        counts = {name: getattr(self, name) for name in _COUNTS}
        return {
            "rule": self.name,
            "outcome": self.outcome,
            "message": self.message or None,
            **times,
            **counts,
            "pinned": sorted(map(str, self.pins)),
        }


def write_state(root: Path, state: SyncState, now: float) -> None:
    """:raises OSError: when it cannot be written."""
    values = {**asdict(state, recurse=False), "pins": [json.loads(bytes(each)) for each in state.pins]}
    files.replace_file(
        root / layout.sync_state(state.key), json.dumps(values).encode(), root / layout.TEMPORARY, now
    )


def read_states(root: Path) -> dict[str, SyncState]:
    """Return the states of all rules that have run, by their keys.

    A malformed field has its default, as a missing one has, so that the rule keeps its pins.  A file without
    a key, a name and pins is left out, as is one that the rule's next state would not be written to.
    """
    states = [(path, _parse(found.data)) for path, found in files.iter_small_files(root / layout.SYNC)]
    return {each.key: each for path, each in states if each and path == root / layout.sync_state(each.key)}


def delete_state(root: Path, key: str) -> None:
    files.remove(root / layout.sync_state(key))


def request_sync(root: Path, now: float) -> None:
    """Have a running mirror run all rules, which it begins within seconds.

    :raises OSError: when the request cannot be written.
    """
    files.replace_file(root / layout.SYNC_REQUEST, b"", root / layout.TEMPORARY, now)


def is_requested(root: Path) -> bool:
    return (root / layout.SYNC_REQUEST).exists()


def end_request(root: Path) -> None:
    """Remove the request, once the states of the rules record it."""
    files.remove(root / layout.SYNC_REQUEST)


def request_run(state: SyncState) -> SyncState:
    """Return the state of a rule that is to be run at once, as an operator has asked."""
    return evolve(state, outcome="waiting", message="", next_run=0.0, is_requested=True)


def lock_sync(root: Path) -> int | None:
    """Lock running until the returned file is closed; None if another process has the lock."""
    return files.lock(root / layout.SYNC_LOCK)


def read_owner(root: Path, now: float) -> str:
    """Return the identifier of this cache, by which others that share its bucket know it.

    The first call makes it.  The caller holds ``lock_sync``, so that only one process does.

    :raises OSError: if the new identifier cannot be written.
    """
    path = root / layout.SYNC_OWNER
    found = files.read_small_file(path)
    if found is not None and found.data:
        return found.data.decode(errors="replace")
    owner = token_hex(16)
    files.replace_file(path, owner.encode(), root / layout.TEMPORARY, now)
    return owner


def is_pinned_by_rule(name: str, states: Iterable[SyncState]) -> bool:
    """Return whether a rule has pinned an image, rather than an operator."""
    return any(str(pin) == name for state in states for pin in state.pins)


def merge_platforms(pin: Pin, others: Iterable[SyncState]) -> Pin:
    """Return the pin for the platforms that it and the other rules want of its image, together."""
    wanted = [
        pin.platforms, *(each.platforms for state in others for each in state.pins if str(each) == str(pin))
    ]  # fmt: skip
    if not all(wanted):
        return evolve(pin, platforms=())
    return evolve(pin, platforms=tuple(dict.fromkeys(each for some in wanted for each in some)))


def plan_unpins(state: SyncState, wanted: Collection[str], others: Iterable[SyncState]) -> list[Pin]:
    """Return the pins of a rule that neither it nor another rule wants any longer.

    :param wanted: the images that match the rule, as pins are written.
    """
    kept = {str(pin) for other in others for pin in other.pins}.union(wanted)
    return [pin for pin in state.pins if str(pin) not in kept]


def _parse(data: bytes) -> SyncState | None:
    try:
        values = json.loads(data)
        pins = [Pin.parse(json.dumps(each).encode()) for each in values["pins"]]
        state = SyncState(str(values["key"]), str(values["name"]), pins=tuple(pin for pin in pins if pin))
    except _MALFORMED:
        return None
    known = {}
    for name in _PARSERS.keys() & values.keys():
        with suppress(*_MALFORMED):
            known[name] = _PARSERS[name](values[name])
    return evolve(state, **known)
