"""Sums of the pulls that are kept, by client and by image, so that questions about many pulls are quick.

The rollup has the pulls with numbers below its end; it takes in newer ones in chunks.  A row has the sums of
a client over the images of a category, or of an image over the clients of one, in a week, a day or an hour.
A category is a namespace of images, a network or a region; 0 is the category of all.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from ipaddress import ip_network
from typing import NamedTuple

from ..system.networks import Network
from .database import AMOUNTS, SUMS_OF_PULLS, Word, number_word, transaction
from .tracker import first_number

HOUR, DAY, WEEK = 3600, 86_400, 604_800
LENGTHS = (WEEK, DAY, HOUR)
"""The seconds of the periods that have rows."""
CHUNK = 2500
"""Pulls that the rollup takes in at once; as many newer ones are counted for each question."""
_CHUNKS = 40
LAST_NUMBER = 2**63 - 1
_DELAY = 300.0
"""Seconds after which a pull is seldom changed any more."""
_HOURS = 30
"""Hours before the end that have rows of their own: the last day's, and some that the end may lag behind."""
_LEVELS: Mapping[int, Sequence[int]] = {4: (16, 24), 6: (48, 64)}
"""The lengths of the networks that are categories, by the version of the addresses."""
_ONE_HOUR = first_number(HOUR)
_SUMS = ", ".join(f"sum({name})" for name in AMOUNTS)
_ADDED = ", ".join(f"{name} = {name} + excluded.{name}" for name in AMOUNTS)


class RollupKey(IntEnum):
    """The kinds of rows, by their key."""

    CLIENT = 0
    IMAGE = 1


class RollupSpan(NamedTuple):
    """A part of a time.

    :ivar seconds: the length of its periods; 0 for single pulls.
    :ivar first: a period or the number of a pull, as ``last``, which is excluded.
    """

    seconds: int
    first: int
    last: int


def split_numbers(first: int, last: int, end: int, lengths: Sequence[int] = LENGTHS) -> list[RollupSpan]:
    """Split a range of numbers into periods that the rollup has whole, and pulls to be counted.

    :param end: the end of the rollup.
    """
    if first >= last:
        return []
    if not lengths:
        return [RollupSpan(0, first, last)]
    seconds, *shorter = lengths
    length, oldest = first_number(seconds), _first_hour(end) * _ONE_HOUR if seconds == HOUR else 0
    start = -(-max(first, oldest) // length)
    # The last row lacks nothing before the end.
    stop = last // length if last < end else -(-end // length)
    if start >= stop:
        return split_numbers(first, last, end, shorter)
    return [
        *split_numbers(first, start * length, end, shorter),
        RollupSpan(seconds, start, stop),
        *split_numbers(min(stop * length, end), last, end, shorter),
    ]


def _first_hour(end: int) -> int:
    return max(0, end // _ONE_HOUR - _HOURS)


def read_end(connection: sqlite3.Connection) -> int:
    """Return the number below which the rollup has all pulls."""
    return int(connection.execute("SELECT number FROM rollup_end").fetchone()[0])


def change_rollup(connection: sqlite3.Connection, first: int, last: int, factor: int) -> None:
    """Add the pulls with numbers up to the last, which is excluded, or subtract them with the factor -1.

    Those beyond the end are left out.
    """
    end = read_end(connection)
    _change(connection, first, min(last, end), end, factor)


def _change(connection: sqlite3.Connection, first: int, last: int, end: int, factor: int) -> None:
    if first >= last:
        return
    _add_categories(connection, first, last)
    amounts = ", ".join(
        f"{factor} * {each} AS {name}" for each, name in zip(SUMS_OF_PULLS, AMOUNTS, strict=True)
    )
    for key, column, other in ((RollupKey.CLIENT, "client", "image"), (RollupKey.IMAGE, "image", "client")):
        connection.execute(
            "INSERT INTO rollup WITH hours AS"  # noqa: S608
            f" (SELECT number / {_ONE_HOUR} AS hour, category, pull.{column} AS key, {amounts}"
            f" FROM pull JOIN category ON word = pull.{other}"
            f" WHERE number >= ? AND number < ? AND gets > 0 GROUP BY hour, category, pull.{column})"
            f" SELECT {key}, {WEEK}, hour / 168, category, key, {_SUMS} FROM hours GROUP BY 3, 4, 5"
            f" UNION ALL SELECT {key}, {DAY}, hour / 24, category, key, {_SUMS} FROM hours GROUP BY 3, 4, 5"
            f" UNION ALL SELECT {key}, {HOUR}, * FROM hours WHERE hour >= ?"
            f" ON CONFLICT DO UPDATE SET {_ADDED}",
            (first, last, _first_hour(end)),
        )


def _add_categories(connection: sqlite3.Connection, first: int, last: int) -> None:
    """Add the categories of new clients and images."""
    for column, kind in (("client", Word.NETWORK), ("image", Word.NAMESPACE)):
        words = connection.execute(
            "SELECT id, text FROM word WHERE id IN"  # noqa: S608
            f" (SELECT {column} FROM pull WHERE number >= ? AND number < ?)"
            " AND NOT EXISTS (SELECT 1 FROM category WHERE category.word = word.id)",
            (first, last),
        ).fetchall()
        for word, text in words:
            categories = networks_of(text) if kind is Word.NETWORK else {namespace_of(text)}
            numbers = [0, *(number_word(connection, kind, each) for each in categories)]
            connection.executemany("INSERT INTO category VALUES (?, ?)", [(word, each) for each in numbers])


def networks_of(client: str) -> Iterable[str]:
    """Return the categories of a client as the history keeps it: its networks, or the region itself."""
    try:
        network = ip_network(client)
    except ValueError:
        return {client}
    lengths = (each for each in _LEVELS[network.version] if each <= network.prefixlen)
    return {str(network.supernet(new_prefix=each)) for each in lengths}


def namespace_of(image: str) -> str:
    """Return the glob of the images with the same registry and first part of their names."""
    return "/".join(image.split("/")[:-1][:2]) + "/*"


def category_length(network: Network) -> int | None:
    """Return the length of the categories that make up a network; None if it is smaller than all of them."""
    return min((each for each in _LEVELS[network.version] if each >= network.prefixlen), default=None)


def advance_rollup(connection: sqlite3.Connection, now: float, chunk: int = CHUNK) -> int:
    """Take in pulls that are old enough, as far as they fill chunks; return how many."""
    for count in range(_CHUNKS):
        with transaction(connection):
            first = read_end(connection)
            row = connection.execute(
                "SELECT number FROM pull WHERE number >= ? AND number < ? ORDER BY number LIMIT 1 OFFSET ?",
                (first, first_number(now - _DELAY), chunk),
            ).fetchone()
            if row is None:
                return count * chunk
            (end,) = row
            _change(connection, first, end, end, 1)
            connection.execute("UPDATE rollup_end SET number = ?", (end,))
            _delete_periods(connection, HOUR, _first_hour(end))
    return _CHUNKS * chunk


def delete_pulls(connection: sqlite3.Connection, number: int, limit: int) -> int:
    """Delete the oldest pulls with smaller numbers, of which the rollup keeps nothing; return how many."""
    oldest = "SELECT number FROM pull WHERE number < ? ORDER BY number LIMIT ?"
    (last,) = connection.execute(f"SELECT max(number) FROM ({oldest})", (number, limit)).fetchone()  # noqa: S608
    if last is None:
        return 0
    change_rollup(connection, 0, last + 1, -1)
    for seconds in (WEEK, DAY):
        _delete_periods(connection, seconds, last // first_number(seconds))
    return connection.execute("DELETE FROM pull WHERE number <= ?", (last,)).rowcount


def _delete_periods(connection: sqlite3.Connection, seconds: int, first: int) -> None:
    """Delete the rows of earlier periods."""
    for key in RollupKey:
        connection.execute(
            "DELETE FROM rollup WHERE kind = ? AND seconds = ? AND period < ?", (key, seconds, first)
        )
