"""Writes reports of requests into the history, in batches, and keeps the file within its bounds."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from attrs import frozen
from twisted.logger import Logger

from .database import (
    AMOUNTS,
    BUSY_SECONDS,
    Sums,
    UnusableHistory,
    VersionError,
    Word,
    is_broken,
    is_locked,
    number_word,
    open_for_writing,
    prepare_directory,
    set_aside,
    transaction,
)
from .pulls import OTHERS
from .rollup import LAST_NUMBER, advance_rollup, change_rollup, delete_pulls, read_end
from .tracker import PartState, PartSummary, PullReport, began, first_number, summarize_parts

SUMS_DAYS = 400
"""Days for which sums are kept."""
PRUNING_PERIOD = 60.0
"""Seconds after which the bounds are looked at again."""
_DAY = 86_400
_PART_SECONDS = 180.0
"""Seconds after which a quiet pull can have no more requests."""
_CHUNK = 5000
_CHUNKS = 40
_KINDS = {Word.IMAGE: "image", Word.CLIENT: "client", Word.USER: "user", Word.DIGEST: "digest"}
_SUMS = {Word.IMAGE: Sums.REPOSITORY, Word.CLIENT: Sums.CLIENT}
_MAX_PENDING = 30
"""Batches that are kept while another process holds the file: half a minute."""
_MAX_KEYS = 10_000
"""Registries, repositories or clients of a day that have sums of their own; the rest count as one."""
_log = Logger()
_ADDITIONS = ", ".join(f"{name} = {name} + ?" for name in AMOUNTS)


@frozen
class HistoryBounds:
    """The days for which pulls are kept, and the size of the file in bytes."""

    days: int = 30
    size: int = 200_000_000


def prune(connection: sqlite3.Connection, bounds: HistoryBounds, now: float) -> None:
    """Delete what exceeds the bounds, once per minute for all processes.

    :raises sqlite3.Error: when the file cannot be written.
    """
    with transaction(connection):
        (before,) = connection.execute("SELECT time FROM pruned").fetchone()
        if abs(now - before) < PRUNING_PERIOD:
            return
        connection.execute("UPDATE pruned SET time = ?", (now,))
        _delete_finished(connection, now)
    advance_rollup(connection, now)
    deleted = _delete_before(connection, first_number(now - bounds.days * _DAY))
    for _ in range(_CHUNKS):
        if _size(connection) <= bounds.size:
            break
        count = _delete_oldest(connection)
        if not count:
            break
        deleted += count
    if deleted:
        _delete_words(connection)
    connection.executescript("PRAGMA incremental_vacuum(1000)")  # execute would free one page only


def _delete_finished(connection: sqlite3.Connection, now: float) -> None:
    """Delete the parts of pulls that are over, pulls of which only the head was requested, and old sums."""
    connection.execute(
        "DELETE FROM part WHERE number IN (SELECT number FROM part GROUP BY number HAVING max(ended) < ?)",
        (now - _PART_SECONDS,),
    )
    connection.execute(
        "DELETE FROM pull WHERE number BETWEEN ? AND ? AND gets <= 0",
        (first_number(now - 15 * 60), first_number(now - _PART_SECONDS)),
    )
    oldest = int(now // _DAY) - SUMS_DAYS
    connection.execute("DELETE FROM sums WHERE kind = ? AND period < ?", (Sums.HOUR, oldest * 24))
    for kind in (Sums.REGISTRY, Sums.REPOSITORY, Sums.CLIENT):
        connection.execute("DELETE FROM sums WHERE kind = ? AND period < ?", (kind, oldest))


def _delete_before(connection: sqlite3.Connection, number: int) -> int:
    """Delete pulls with smaller numbers, in transactions that are short enough for other processes."""
    deleted = 0
    for _ in range(_CHUNKS):
        with transaction(connection):
            count = delete_pulls(connection, number, _CHUNK)
        deleted += count
        if count < _CHUNK:
            break
    return deleted


def _size(connection: sqlite3.Connection) -> int:
    """Return the bytes of the file that are in use."""
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def _delete_oldest(connection: sqlite3.Connection) -> int:
    """Delete the oldest pulls, or, when there are none, the oldest sums; return how many."""
    with transaction(connection):
        return delete_pulls(connection, LAST_NUMBER, _CHUNK) or connection.execute(
            "DELETE FROM sums WHERE kind > 0"
            " AND period = (SELECT min(period) FROM sums WHERE kind = ?)", (Sums.REGISTRY,)
        ).rowcount  # fmt: skip


def _delete_words(connection: sqlite3.Connection) -> None:
    """Delete texts that no row needs."""
    with transaction(connection):
        for kind, column in _KINDS.items():
            used = f"SELECT {column} FROM pull WHERE {column} > 0"  # noqa: S608
            connection.execute(
                f"DELETE FROM word WHERE kind = ? AND id NOT IN ({used})"  # noqa: S608
                " AND id NOT IN (SELECT key FROM sums WHERE kind = ?)",
                (kind, _SUMS.get(kind, -1)),
            )
        connection.execute("DELETE FROM category WHERE word > 0 AND word NOT IN (SELECT id FROM word)")
        connection.execute(
            "DELETE FROM word WHERE kind IN (?, ?) AND id NOT IN (SELECT category FROM category)",
            (Word.NETWORK, Word.NAMESPACE),
        )


class HistoryWriter:
    """Writes batches of reports; what cannot be written is lost, and never stops the mirror.

    Each batch tries anew, and makes the directory if it is missing.  Only one thread may call it at a time.
    """

    def __init__(self, path: Path, bounds: HistoryBounds, busy_seconds: float = BUSY_SECONDS) -> None:
        self._path = path
        self._bounds = bounds
        self._busy_seconds = busy_seconds
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._pruned = 0.0
        self._pending: list[Sequence[PullReport]] = []
        self._is_failing = False

    def write(self, reports: Sequence[PullReport], now: float) -> None:
        """Write a batch, and those before it that found the file locked."""
        self._pending = [*self._pending, reports][-_MAX_PENDING:]
        try:
            connection = self._connect()
            while self._pending:
                with transaction(connection):
                    _Batch(connection).write(self._pending[0])
                del self._pending[0]
            if abs(now - self._pruned) >= PRUNING_PERIOD:
                prune(connection, self._bounds, now)
                self._pruned = now
        except (sqlite3.Error, OSError, UnusableHistory) as error:
            self._fail(error)
        else:
            if self._is_failing:
                self._is_failing = False
                _log.info("the history {path} is written again", path=str(self._path))

    def close(self) -> None:
        """Close the file; the next batch opens it again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _connect(self) -> sqlite3.Connection:
        """Return the connection; open the file again if it was set aside, deleted or hidden by a mount."""
        if self._connection is not None and not self._is_same_file():
            self.close()
        if self._connection is None:
            path = prepare_directory(self._path.parent)
            self._connection = open_for_writing(path, self._busy_seconds)
            self._inode = self._path.stat().st_ino
        return self._connection

    def _is_same_file(self) -> bool:
        try:
            return self._path.stat().st_ino == self._inode
        except FileNotFoundError:
            return False

    def _fail(self, error: sqlite3.Error | OSError | UnusableHistory) -> None:
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
        if self._is_failing:
            return
        self._is_failing = True
        if isinstance(error, UnusableHistory | VersionError):
            _log.error(
                "the mirror keeps no history in {path} for now: {error}",
                path=str(self._path),
                error=str(error),
            )
            return
        _log.error(
            "the history {path} cannot be written: {error}. The mirror serves as before; free space on"
            " the disk, check the file's owner, or set history = false",
            path=str(self._path), error=str(error),
        )  # fmt: skip


class _Batch:
    """One transaction; amounts are added up before they are added to the sums in the file."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute
        self._words: dict[tuple[Word, str], int] = {}
        self._sums: dict[tuple[Sums, int, Word | None, str], list[int]] = {}
        self._connection = connection
        self._end = read_end(connection)

    def write(self, reports: Iterable[PullReport]) -> None:
        for report in reports:
            if not report.number:
                self._add(report.last, report)
            elif report.number >= self._end:
                self._write_pull(report)
            else:
                change_rollup(self._connection, report.number, report.number + 1, -1)
                self._write_pull(report)
                change_rollup(self._connection, report.number, report.number + 1, 1)
        for key, amounts in self._sums.items():
            self._add_to(*key, amounts)

    def _write_pull(self, report: PullReport) -> None:
        number = report.number
        columns = "milliseconds, gets, reason, reference, digest, platform, layers, cached_layers"
        select = f"SELECT {columns} FROM pull WHERE number = ?"  # noqa: S608
        row = self._execute(select, (number,)).fetchone()
        if row is None:
            image = self._word(Word.IMAGE, f"{report.registry}/{report.repository}")
            client, user = self._word(Word.CLIENT, report.client), self._word(Word.USER, report.user)
            self._execute(
                "INSERT INTO pull (number, client, user, host, image, reference) VALUES (?, ?, ?, ?, ?, ?)",
                (number, client, user, self._word(Word.HOST, report.host), image, report.reference),
            )
            row = (0, 0, "", report.reference, 0, 0, 0, 0)
        duration, gets, reason, reference, digest, platform, *layers = row
        if not reference or (":" in reference and report.reference and ":" not in report.reference):
            reference = report.reference
        after_gets = gets + report.gets
        after_duration = max(duration, round((report.last - began(number)) * 1000))
        after_reason = reason
        if report.parts:
            *layers, after_reason = self._write_parts(number, report.parts)
        self._execute(
            "UPDATE pull SET milliseconds = ?, gets = ?, reason = ?, reference = ?, digest = ?, platform = ?,"
            " layers = ?, cached_layers = ?, cached_bytes = cached_bytes + ?,"
            " upstream_bytes = upstream_bytes + ?, saved_requests = saved_requests + ?,"
            " saved_pulls = saved_pulls + ?, upstream_milliseconds = upstream_milliseconds + ?"
            " WHERE number = ?",
            (
                after_duration, after_gets, after_reason, reference,
                digest or self._word(Word.DIGEST, report.digest),
                platform or self._word(Word.PLATFORM, report.platform), *layers,
                report.cached_bytes, report.upstream_bytes, report.saved_requests, report.saved_pulls,
                round(report.upstream_seconds * 1000), number,
            ),
        )  # fmt: skip
        before, after = gets > 0, after_gets > 0
        failed = (after and after_reason != "") - (before and reason != "")
        self._add(began(number), report, after - before, failed, after_duration * after - duration * before)

    def _write_parts(self, number: int, parts: Mapping[int, PartState]) -> PartSummary:
        """Merge the states of a pull's parts with those that are known, and return what they say of it."""
        rows = self._execute(
            "SELECT name, ended, is_layer, is_cached, reason FROM part WHERE number = ?", (number,)
        )
        known = {
            name: PartState(ended, bool(is_layer), bool(is_cached), reason)
            for name, ended, is_layer, is_cached, reason in rows
        }
        for each, state in parts.items():
            name = each >> 1  # SQLite's integers are signed
            known[name] = known[name].then(state) if name in known else state
            self._execute(
                "INSERT OR REPLACE INTO part VALUES (?, ?, ?, ?, ?, ?)", (number, name, *known[name])
            )
        return summarize_parts(list(known.values()))

    def _add(
        self, time: float, report: PullReport, pulls: int = 0, failed: int = 0, milliseconds: int = 0
    ) -> None:
        """Add to the sums of the hour, and of the day's registry, repository and client."""
        amounts = (
            pulls, failed, report.cached_bytes, report.upstream_bytes, report.saved_requests,
            report.saved_pulls, milliseconds, round(report.upstream_seconds * 1000),
        )  # fmt: skip
        day = int(time // 86_400)
        for key in (
            (Sums.HOUR, int(time // 3600), None, ""),
            (Sums.REGISTRY, day, Word.REGISTRY, report.registry),
            (Sums.REPOSITORY, day, Word.IMAGE, f"{report.registry}/{report.repository}"),
            (Sums.CLIENT, day, Word.CLIENT, report.client),
        ):
            total = self._sums.get(key, (0,) * len(AMOUNTS))
            self._sums[key] = [sum(pair) for pair in zip(total, amounts, strict=True)]

    def _add_to(self, kind: Sums, period: int, word: Word | None, text: str, amounts: Iterable[int]) -> None:
        number = 0 if word is None else self._word(word, text)
        if self._update(kind, period, number, amounts):
            return
        if word is not None:
            count = "SELECT count(*) FROM sums WHERE kind = ? AND period = ?"
            if self._execute(count, (kind, period)).fetchone()[0] >= _MAX_KEYS:
                number = self._word(word, OTHERS)
                if self._update(kind, period, number, amounts):
                    return
        self._execute(
            "INSERT INTO sums VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (kind, period, number, *amounts)
        )

    def _update(self, kind: Sums, period: int, key: int, amounts: Iterable[int]) -> bool:
        update = f"UPDATE sums SET {_ADDITIONS} WHERE kind = ? AND period = ? AND key = ?"  # noqa: S608
        return self._execute(update, (*amounts, kind, period, key)).rowcount > 0

    def _word(self, kind: Word, text: str) -> int:
        if not text:
            return 0
        number = self._words.get((kind, text))
        if number is None:
            number = self._words[kind, text] = number_word(self._connection, kind, text)
        return number
