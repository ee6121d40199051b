"""Keeps the history within its bounds, once per minute: deletes old pulls, old sums, and unused texts."""

from __future__ import annotations

import sqlite3

from attrs import frozen

from .database import Sums, Word, transaction
from .rollup import LAST_NUMBER, advance_rollup, delete_pulls
from .tracker import first_number

SUMS_DAYS = 400
"""Days for which sums are kept."""
PERIOD = 60.0
"""Seconds after which the bounds are looked at again."""
_DAY = 86_400
_PART_SECONDS = 180.0
"""Seconds after which a quiet pull can have no more requests."""
_CHUNK = 5000
_CHUNKS = 40
_KINDS = {Word.IMAGE: "image", Word.CLIENT: "client", Word.USER: "user", Word.DIGEST: "digest"}
_SUMS = {Word.IMAGE: Sums.REPOSITORY, Word.CLIENT: Sums.CLIENT}


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
        if abs(now - before) < PERIOD:
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
