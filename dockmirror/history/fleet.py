"""The sums of several mirrors: the objects into which each writes its own, and their totals."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

from attrs import frozen

from .database import Sums, open_for_reading, open_for_writing, transaction
from .history_writer import SUMS_DAYS
from .pulls import OTHERS, PullFilter, PullSums, SumKey
from .reader import find_speed, make_sums, period_of

UPLOAD_PERIOD = 600.0
"""Seconds after which a mirror uploads its sums again."""
UP_SECONDS = 2.5 * UPLOAD_PERIOD
"""Seconds for which a mirror that has uploaded its sums counts as running."""
FleetSumKey = SumKey | Literal["mirror"]
_DAY = 86_400
_MAX_KEYS = 1000
"""Repositories or clients of a mirror's day that are uploaded by name; the rest count as one."""
_MAX_SIZE = 8 * 1024 * 1024
"""Bytes of an object, decompressed, that are read at most."""
_AMOUNTS = 8
_KINDS: Mapping[str, Sums] = {
    "hour": Sums.HOUR,
    "registry": Sums.REGISTRY,
    "repository": Sums.REPOSITORY,
    "client": Sums.CLIENT,
}
_COLUMNS = (
    "pulls, failed, cached_bytes, upstream_bytes, saved_requests, saved_pulls, milliseconds,"
    " upstream_milliseconds"
)
Row = Sequence[Any]
"""A key and the eight amounts of its sums; the key of an hour is its number since the epoch."""


@frozen
class FleetDay:
    """The sums of one mirror in one day (UTC), and its state when it uploaded them.

    :ivar day: days since the epoch.
    :ivar mirror: the name of its machine.
    :ivar seen: when it uploaded them, in seconds since the epoch.
    :ivar rows: by ``hour``, ``registry``, ``repository`` and ``client``.
    """

    day: int
    mirror: str
    version: str
    seen: float
    rows: Mapping[str, Sequence[Row]]

    def __bytes__(self) -> bytes:
        fields = {"mirror": self.mirror, "version": self.version, "seen": self.seen, "rows": self.rows}
        return zlib.compress(json.dumps(fields, separators=(",", ":")).encode())

    @classmethod
    def parse(cls, day: int, data: bytes) -> FleetDay | None:
        """Return the sums in an object; None if it is malformed."""
        try:
            fields = json.loads(zlib.decompressobj().decompress(data, _MAX_SIZE))
            rows = {name: [_check(name, row) for row in fields["rows"][name]] for name in _KINDS}
            return cls(day, str(fields["mirror"]), str(fields["version"]), float(fields["seen"]), rows)
        except (zlib.error, ValueError, KeyError, TypeError, RecursionError):
            return None


def _check(kind: str, row: Row) -> Row:
    """:raises ValueError: when it is no row."""
    key, *amounts = row
    is_key = type(key) is (int if kind == "hour" else str)
    if not is_key or len(amounts) != _AMOUNTS or not all(isinstance(each, int) for each in amounts):
        raise ValueError("no sums")
    return (key, *amounts)


@frozen
class FleetMirror:
    """A mirror of a fleet.

    :ivar seen: when it last uploaded its sums.
    """

    name: str
    version: str
    seen: float

    def is_up(self, now: float) -> bool:
        return now - self.seen < UP_SECONDS


class FleetSums:
    """The sums of all mirrors that share a bucket, as ``HistoryReader`` returns those of one."""

    def __init__(self, days: Iterable[FleetDay]) -> None:
        self._days = sorted(days, key=lambda each: each.seen)

    def mirrors(self) -> Sequence[FleetMirror]:
        """Return the mirrors by name, each as it was last seen."""
        latest = {each.mirror: FleetMirror(each.mirror, each.version, each.seen) for each in self._days}
        return [latest[name] for name in sorted(latest)]

    def sums(self, by: FleetSumKey, filter: PullFilter, limit: int = 1000) -> Sequence[PullSums]:
        """Return the sums of the whole days, or hours, that the filter's time touches."""
        first, last = period_of(filter, 3600 if by == "hour" else _DAY)
        totals: dict[Any, list[int]] = {}
        for day in self._days:
            for key, row in _rows(day, by):
                if first <= (key if by == "hour" else day.day) < last:
                    total = totals.setdefault(key, [0] * _AMOUNTS)
                    totals[key] = [sum(pair) for pair in zip(total, row[1:], strict=True)]
        found = [(key, *amounts) for key, amounts in sorted(totals.items())]
        return make_sums(by, found, limit, find_speed(found))


def _rows(day: FleetDay, by: FleetSumKey) -> Iterable[tuple[Any, Row]]:
    """Return the rows of a day, each with the key under which it is summed up."""
    if by == "mirror":
        return ((day.mirror, row) for row in day.rows["hour"])
    if by == "day":
        return ((day.day, row) for row in day.rows["hour"])
    return ((row[0], row) for row in day.rows[by])


@frozen
class FleetUpload:
    """The days whose sums a mirror has to upload.

    :ivar history: an identifier of the history; one that is begun anew has another.
    :ivar is_first: True for the first upload of the day.
    """

    history: str
    is_first: bool
    days: Sequence[int]


def claim_upload(path: Path, now: float) -> FleetUpload | None:
    """Return what has changed since the last upload that succeeded; None while it is not time yet.

    Of several processes with one history, one gets it.

    :raises sqlite3.Error: when the file cannot be used.
    """
    if not path.exists():
        return None
    with closing(open_for_writing(path)) as connection, transaction(connection):
        history, tried, uploaded = connection.execute("SELECT id, tried, uploaded FROM fleet").fetchone()
        if 0 <= now - tried < UPLOAD_PERIOD:
            return None
        connection.execute("UPDATE fleet SET tried = ?", (now,))
        today = int(now // _DAY)
        # A pull counts on the day when it began, which may be the day before.
        first = max(today - SUMS_DAYS, min(today, int(uploaded // _DAY)) - 1)
        days = {
            row[0]
            for row in connection.execute(
                "SELECT DISTINCT period / 24 FROM sums WHERE kind = ? AND period >= ?",
                (Sums.HOUR, first * 24),
            )
        }
        return FleetUpload(history, int(uploaded // _DAY) != today, sorted({*days, today}))


def confirm_upload(path: Path, time: float) -> None:
    """Note that everything up to a time is uploaded.

    :raises sqlite3.Error: when the file cannot be used.
    """
    with closing(open_for_writing(path)) as connection, transaction(connection):
        connection.execute("UPDATE fleet SET uploaded = ?", (time,))


def read_day(path: Path, day: int, mirror: FleetMirror) -> FleetDay:
    """Return the sums of a day.

    :raises sqlite3.Error: when the file cannot be read.
    """
    with closing(open_for_reading(path)) as connection:
        return FleetDay(day, mirror.name, mirror.version, mirror.seen, _read_rows(connection, day))


def _read_rows(connection: sqlite3.Connection, day: int) -> Mapping[str, Sequence[Row]]:
    found: dict[str, Sequence[Row]] = {}
    for name, kind in _KINDS.items():
        length, key = (24, "period") if kind is Sums.HOUR else (1, "coalesce(word.text, '')")
        rows = connection.execute(
            f"SELECT {key}, {_COLUMNS} FROM sums LEFT JOIN word ON word.id = sums.key"  # noqa: S608
            " WHERE sums.kind = ? AND period >= ? AND period < ?"
            " ORDER BY cached_bytes + upstream_bytes DESC",
            (kind, day * length, (day + 1) * length),
        ).fetchall()
        found[name] = _limit(rows)
    return found


def _limit(rows: Sequence[Row]) -> Sequence[Row]:
    """Return the largest rows, and the sum of the others."""
    if len(rows) <= _MAX_KEYS:
        return rows
    named = [row for row in rows if row[0] != OTHERS][:_MAX_KEYS]
    names = {row[0] for row in named}
    rest = zip(*(row[1:] for row in rows if row[0] not in names), strict=True)
    return [*named, (OTHERS, *map(sum, rest))]
