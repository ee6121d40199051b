"""Writes reports of requests into the history, in batches, and keeps the file within its bounds."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from attrs import astuple, evolve, fields, frozen
from twisted.logger import Logger

from .database import (
    BUSY_SECONDS,
    Sums,
    Word,
    is_broken,
    is_locked,
    open_for_writing,
    set_aside,
    transaction,
)
from .pruning import PERIOD, HistoryBounds, prune
from .pulls import OTHERS
from .tracker import PartReport, PartState, PartSummary, began, summarize_parts

_MAX_PENDING = 30
"""Batches that are kept while another process holds the file: half a minute."""
_MAX_KEYS = 10_000
"""Registries, repositories or clients of a day that have sums of their own; the rest count as one."""
_log = Logger()


@frozen
class _Counts:
    """The amounts that a report adds to sums."""

    pulls: int = 0
    failed: int = 0
    cached_bytes: int = 0
    upstream_bytes: int = 0
    saved_requests: int = 0
    saved_pulls: int = 0
    milliseconds: int = 0
    upstream_milliseconds: int = 0


_ADDITIONS = ", ".join(f"{each.name} = {each.name} + ?" for each in fields(_Counts))


class HistoryWriter:
    """Writes batches of reports; what cannot be written is lost, and never stops the mirror.

    Only one thread may call it at a time.
    """

    def __init__(self, path: Path, bounds: HistoryBounds, busy_seconds: float = BUSY_SECONDS) -> None:
        self._path = path
        self._bounds = bounds
        self._busy_seconds = busy_seconds
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._pruned = 0.0
        self._pending: list[Sequence[PartReport]] = []
        self._is_failing = False

    def write(self, reports: Sequence[PartReport], now: float) -> None:
        """Write a batch, and those before it that found the file locked."""
        self._pending = [*self._pending, reports][-_MAX_PENDING:]
        try:
            connection = self._connect()
            while self._pending:
                with transaction(connection):
                    _Batch(connection).write(self._pending[0])
                del self._pending[0]
            if abs(now - self._pruned) >= PERIOD:
                prune(connection, self._bounds, now)
                self._pruned = now
            self._is_failing = False
        except (sqlite3.Error, OSError) as error:
            self._fail(error)

    def close(self) -> None:
        """Close the file; the next batch opens it again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _connect(self) -> sqlite3.Connection:
        """Return the connection; open the file again if another process has set it aside."""
        if self._connection is not None and not self._is_same_file():
            self.close()
        if self._connection is None:
            self._connection = open_for_writing(self._path, self._busy_seconds)
            self._inode = self._path.stat().st_ino
        return self._connection

    def _is_same_file(self) -> bool:
        try:
            return self._path.stat().st_ino == self._inode
        except FileNotFoundError:
            return False

    def _fail(self, error: sqlite3.Error | OSError) -> None:
        """Drop what could not be written, unless the file was only locked; log it once."""
        if is_locked(error) and len(self._pending) < _MAX_PENDING:
            return
        self._pending.clear()
        self.close()
        try:
            if is_broken(error):
                set_aside(self._path, error)
                return
        except OSError as another:
            error = another
        if not self._is_failing:
            self._is_failing = True
            _log.error(
                "the history {path} cannot be written: {error}. The mirror serves as before; free space on"
                " the disk, check the file's owner, or set history = false",
                path=str(self._path), error=str(error),
            )  # fmt: skip


class _Batch:
    """One transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute
        self._words: dict[tuple[Word, str], int] = {}

    def write(self, reports: Iterable[PartReport]) -> None:
        by_number = attrgetter("number")
        for number, parts in groupby(sorted(reports, key=by_number), by_number):
            if number:
                self._write_pull(number, list(parts))
            else:
                for part in parts:
                    self._add(part.last, part, _counts([part]))

    def _write_pull(self, number: int, parts: Sequence[PartReport]) -> None:
        first = next((each for each in parts if each.is_first), parts[0])
        columns = "milliseconds, gets, reason, reference, digest, platform, layers, cached_layers"
        select = f"SELECT {columns} FROM pull WHERE number = ?"  # noqa: S608
        row = self._execute(select, (number,)).fetchone()
        if row is None:
            image = self._word(Word.IMAGE, f"{first.registry}/{first.repository}")
            client, user = self._word(Word.CLIENT, first.client), self._word(Word.USER, first.user)
            self._execute(
                "INSERT INTO pull (number, client, user, host, image, reference) VALUES (?, ?, ?, ?, ?, ?)",
                (number, client, user, self._word(Word.HOST, first.host), image, first.reference),
            )
            row = (0, 0, "", first.reference, 0, 0, 0, 0)
        duration, gets, reason, reference, digest, platform, *layers = row
        for part in parts:
            if part.is_first:
                if ":" in reference and ":" not in part.reference:
                    reference = part.reference
                digest = digest or self._word(Word.DIGEST, part.digest)
            platform = platform or self._word(Word.PLATFORM, part.platform)
        after_gets = gets + sum(each.gets for each in parts)
        last = max(each.last for each in parts)
        after_duration = max(duration, round((last - began(number)) * 1000))
        after_reason = reason
        if any(each.state for each in parts):
            *layers, after_reason = self._write_parts(number, parts)
        counts = _counts(parts)
        self._execute(
            "UPDATE pull SET milliseconds = ?, gets = ?, reason = ?, reference = ?, digest = ?, platform = ?,"
            " layers = ?, cached_layers = ?, cached_bytes = cached_bytes + ?,"
            " upstream_bytes = upstream_bytes + ?, saved_requests = saved_requests + ?,"
            " saved_pulls = saved_pulls + ?, upstream_milliseconds = upstream_milliseconds + ?"
            " WHERE number = ?",
            (
                after_duration, after_gets, after_reason, reference, digest, platform, *layers,
                counts.cached_bytes, counts.upstream_bytes, counts.saved_requests, counts.saved_pulls,
                counts.upstream_milliseconds, number,
            ),
        )  # fmt: skip
        before, after = gets > 0, after_gets > 0
        change = evolve(
            counts,
            pulls=after - before,
            failed=(after and after_reason != "") - (before and reason != ""),
            milliseconds=after_duration * after - duration * before,
        )
        self._add(began(number), first, change)

    def _write_parts(self, number: int, parts: Sequence[PartReport]) -> PartSummary:
        """Merge the states of a pull's parts with those that are known, and return what they say of it."""
        rows = self._execute(
            "SELECT name, ended, is_layer, is_cached, reason FROM part WHERE number = ?", (number,)
        )
        known = {
            name: PartState(ended, bool(is_layer), bool(is_cached), reason)
            for name, ended, is_layer, is_cached, reason in rows
        }
        for part in parts:
            if part.state is not None:
                name = part.name >> 1  # SQLite's integers are signed
                state = known[name] = known[name].then(part.state) if name in known else part.state
                self._execute(
                    "INSERT OR REPLACE INTO part VALUES (?, ?, ?, ?, ?, ?)",
                    (number, name, state.ended, state.is_layer, state.is_cached, state.reason),
                )
        return summarize_parts(list(known.values()))

    def _add(self, time: float, part: PartReport, counts: _Counts) -> None:
        """Add to the sums of the hour, and of the day's registry, repository and client."""
        day = int(time // 86_400)
        image = f"{part.registry}/{part.repository}"
        for kind, period, key in (
            (Sums.HOUR, int(time // 3600), 0),
            (Sums.REGISTRY, day, (Word.REGISTRY, part.registry)),
            (Sums.REPOSITORY, day, (Word.IMAGE, image)),
            (Sums.CLIENT, day, (Word.CLIENT, part.client)),
        ):
            self._add_to(kind, period, key, astuple(counts))

    def _add_to(self, kind: Sums, period: int, key: tuple[Word, str] | int, values: tuple[int, ...]) -> None:
        number = key if isinstance(key, int) else self._word(*key)
        if self._update(kind, period, number, values):
            return
        if not isinstance(key, int):
            count = "SELECT count(*) FROM sums WHERE kind = ? AND period = ?"
            if self._execute(count, (kind, period)).fetchone()[0] >= _MAX_KEYS:
                number = self._word(key[0], OTHERS)
                if self._update(kind, period, number, values):
                    return
        self._execute(
            "INSERT INTO sums VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (kind, period, number, *values)
        )

    def _update(self, kind: Sums, period: int, key: int, values: tuple[int, ...]) -> bool:
        update = f"UPDATE sums SET {_ADDITIONS} WHERE kind = ? AND period = ? AND key = ?"  # noqa: S608
        return self._execute(update, (*values, kind, period, key)).rowcount > 0

    def _word(self, kind: Word, text: str) -> int:
        """Return the number of a text; within a transaction, because others may delete unused ones."""
        if not text:
            return 0
        number = self._words.get((kind, text))
        if number is None:
            row = self._execute("SELECT id FROM word WHERE kind = ? AND text = ?", (kind, text)).fetchone()
            if row is None:
                row = self._execute(
                    "INSERT INTO word (kind, text) VALUES (?, ?) RETURNING id", (kind, text)
                ).fetchone()
            number = self._words[kind, text] = int(row[0])
        return number


def _counts(parts: Sequence[PartReport]) -> _Counts:
    return _Counts(
        0,
        0,
        sum(each.cached_bytes for each in parts),
        sum(each.upstream_bytes for each in parts),
        sum(each.saved_requests for each in parts),
        sum(each.saved_pulls for each in parts),
        0,
        round(sum(each.upstream_seconds for each in parts) * 1000),
    )
