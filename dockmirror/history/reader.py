"""Reads the history out of its file."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from ipaddress import ip_network
from math import inf, isinf
from pathlib import Path
from socket import AF_INET, AF_INET6, inet_pton
from typing import Any

from attrs import evolve

from ..system.networks import Network
from .database import AMOUNTS, SUMS_OF_PULLS, Sums, Word, open_for_reading
from .pulls import HistoryError, InvalidFilter, Pull, PullFilter, PullSums, SumKey
from .rollup import LAST_NUMBER, LENGTHS, RollupKey, RollupSpan, category_length, read_end, split_numbers
from .tracker import QUIET_SECONDS, AddressDetail, began, first_number, outcome_of, parse_client

_GLOB = re.compile(r"[*?\[]")
_FEW = 8
"""Images for whose pulls the index is used."""
_FEW_PULLS = 20_000
"""Pulls of a network for which the index is used."""
_SHORT = 2 * 86_400
"""Seconds up to now in which only the pulls that are kept count, to be exact."""
_ID_OF_WORD = "SELECT id FROM word WHERE kind = ? AND text = ?"
_IDS_OF_GLOB = "SELECT id FROM word WHERE kind = ? AND text GLOB ?"
_ENDED = "(pull.number >> 12) + pull.milliseconds"
"""When a pull ended, in milliseconds since the epoch."""
_SELECT = """
SELECT pull.number, pull.milliseconds, client.text, user.text, host.text, image.text, pull.reference,
    digest.text, platform.text, pull.layers, pull.cached_layers, pull.cached_bytes, pull.upstream_bytes,
    pull.saved_requests, pull.saved_pulls, pull.reason
FROM pull LEFT JOIN word AS client ON client.id = pull.client LEFT JOIN word AS user ON user.id = pull.user
    LEFT JOIN word AS host ON host.id = pull.host LEFT JOIN word AS image ON image.id = pull.image
    LEFT JOIN word AS digest ON digest.id = pull.digest
    LEFT JOIN word AS platform ON platform.id = pull.platform
"""
_OF_SUMS = ", ".join(f"sum({each})" for each in AMOUNTS)
_OF_ROWS = ", ".join(f"sum({each}) AS {each}" for each in AMOUNTS)
_OF_PULLS = ", ".join(f"{each} AS {name}" for each, name in zip(SUMS_OF_PULLS, AMOUNTS, strict=True))
_KINDS: dict[SumKey, Sums] = {
    "hour": Sums.HOUR,
    "day": Sums.HOUR,
    "registry": Sums.REGISTRY,
    "repository": Sums.REPOSITORY,
    "client": Sums.CLIENT,
}
_PERIOD_FORMATS = {"hour": "%Y-%m-%dT%H:00Z", "day": "%Y-%m-%d"}
_SECONDS = {"hour": 3600, "day": 86_400}
Condition = tuple[str, Sequence[object]]


class SqliteHistory:
    """A ``HistoryReader`` of the file that the mirror writes; each call opens it.

    :param now: returns the time in seconds since the epoch.
    :param addresses: the part of clients' addresses that the history keeps.
    """

    def __init__(self, path: Path, now: Callable[[], float], addresses: AddressDetail = "full") -> None:
        self._path = path
        self._now = now
        self._addresses = addresses

    def pulls(self, filter: PullFilter, limit: int = 100, after: int = 0) -> Sequence[Pull]:
        filter = self._complete(filter)
        with self._open() as connection:
            conditions = [*_conditions(connection, filter, self._now())]
            if after:
                conditions.append(("pull.number < ?", (after,)))
            where, values = _where(conditions)
            rows = connection.execute(
                f"{_SELECT} {where} ORDER BY pull.number DESC LIMIT ?", (*values, limit)
            )
            return [self._pull(row) for row in rows]

    def _pull(self, row: Any) -> Pull:
        number, milliseconds, client, user, host, image, reference, digest, platform = row[:9]
        reason = row[15]
        registry, _, repository = (image or "").partition("/")
        seconds = milliseconds / 1000
        return Pull(
            number, began(number), seconds, client or "", user or "", host or "", registry, repository,
            reference, digest or "", platform or "", row[9], row[10], row[11], row[12], row[13], row[14],
            outcome_of(reason, began(number) + seconds, self._now()), reason,
        )  # fmt: skip

    def sums(self, by: SumKey, filter: PullFilter, limit: int = 1000) -> Sequence[PullSums]:
        """Return sums of whole hours or days: without conditions other than the time, or of one repository.

        A filter with other conditions, with parts of days, or of a part of the last two days has the sums of
        the pulls that are still kept.
        """
        filter = self._complete(filter)
        with self._open() as connection:
            kind = _kind_of_sums(by, filter, self._now())
            rows = (
                _sum_kept(connection, by, filter, self._now()) if kind is None
                else _sum_periods(connection, by, filter, kind)
            )  # fmt: skip
            whole = rows
            if kind is None or filter.image:
                period = PullFilter(since=filter.since, until=filter.until)
                whole = _sum_periods(connection, "hour", period, Sums.HOUR)
        return make_sums(by, rows, limit, find_speed(whole))

    def _complete(self, filter: PullFilter) -> PullFilter:
        """Return the filter with its client as the history writes it."""
        try:
            return evolve(filter, client=parse_client(filter.client, self._addresses))
        except ValueError as error:
            raise InvalidFilter(str(error)) from None

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(open_for_reading(self._path)) as connection:
                connection.execute("BEGIN")  # the rollup may go on between two of an answer's queries
                yield connection
        except sqlite3.Error as error:
            raise HistoryError(f"the history {self._path} cannot be read: {error}") from None


def find_speed(rows: Sequence[Any]) -> float:
    """Return the milliseconds for each byte out of the upstreams.

    :param rows: a key and the amounts, the last of which are the upstreams' milliseconds.
    """
    return float(sum(row[8] for row in rows) / max(1, sum(row[4] for row in rows)))


def make_sums(by: str, rows: Sequence[Any], limit: int, speed: float) -> Sequence[PullSums]:
    """Return the sums of rows: hours and days as they come, others by bytes, largest first."""
    found = [_sums(by, row, speed) for row in rows]
    if by in _SECONDS:
        return found[-limit:]
    return sorted(found, key=lambda each: (-each.cached_bytes - each.upstream_bytes, each.key))[:limit]


def _sums(by: str, row: Any, speed: float) -> PullSums:
    """:param speed: milliseconds for each byte out of the upstream."""
    key, pulls, failed, cached, fetched, saved_requests, saved_pulls, milliseconds, _ = row
    if by in _SECONDS:
        key = datetime.fromtimestamp(key * _SECONDS[by], UTC).strftime(_PERIOD_FORMATS[by])
    return PullSums(
        key or "", pulls, failed, cached, fetched, saved_requests, saved_pulls,
        milliseconds / 1000, cached * speed / 1000,
    )  # fmt: skip


def period_of(filter: PullFilter, seconds: int) -> tuple[int, int]:
    """Return the first period that the filter's time touches, and the end, which is excluded."""
    return int(filter.since // seconds), 2**62 if isinf(filter.until) else -int(-filter.until // seconds)


def _kind_of_sums(by: SumKey, filter: PullFilter, now: float) -> Sums | None:
    """Return the sums that answer a question; None if only the pulls do."""
    if any((filter.digest, filter.client, filter.user, filter.outcome, filter.reason)):
        return None
    if not filter.image:
        is_short = filter.since % 86_400 != 0 and filter.since > now - _SHORT
        return None if is_short and _KINDS[by] is not Sums.HOUR else _KINDS[by]
    is_whole = filter.since % 86_400 == 0 and (isinf(filter.until) or filter.until % 86_400 == 0)
    is_repository = not _GLOB.search(filter.image) and ":" not in filter.image.rpartition("/")[2]
    return Sums.REPOSITORY if is_whole and is_repository and by in ("day", "repository") else None


def _sum_periods(connection: sqlite3.Connection, by: SumKey, filter: PullFilter, kind: Sums) -> list[Any]:
    """Return the sums of all pulls in the hours or days that the filter's time touches."""
    first, last = period_of(filter, 3600 if kind is Sums.HOUR else 86_400)
    if kind is Sums.HOUR:
        key = "period" if by == "hour" else "period / 24"
    else:
        key = "period" if by == "day" else "word.text"
    condition = "period >= ? AND period < ?"
    values: list[object] = [kind, first, last]
    if filter.image:
        condition = f"period IN ({_list_days(connection, kind, first, last)}) AND sums.key = ({_ID_OF_WORD})"
        values = [kind, Word.IMAGE, filter.image]
    return connection.execute(
        f"SELECT {key}, {_OF_SUMS} FROM sums LEFT JOIN word ON word.id = sums.key"  # noqa: S608
        f" WHERE sums.kind = ? AND {condition} GROUP BY 1 ORDER BY 1",
        values,
    ).fetchall()


def _list_days(connection: sqlite3.Connection, kind: Sums, first: int, last: int) -> str:
    """Return the days of a time that may have sums; SQLite looks a key up in each, and scans none."""
    earliest, latest = connection.execute(
        "SELECT (SELECT min(period) FROM sums WHERE kind = ?1),"
        " (SELECT max(period) FROM sums WHERE kind = ?1)",
        (kind,),
    ).fetchone()
    days = () if earliest is None else range(max(first, earliest), min(last, latest + 1))
    return ", ".join(map(str, days))


def _sum_kept(connection: sqlite3.Connection, by: SumKey, filter: PullFilter, now: float) -> list[Any]:
    """Return the sums of the pulls that are kept, out of the rollup as far as it has them."""
    first = first_number(filter.since)
    last = LAST_NUMBER if isinf(filter.until) else first_number(filter.until)
    spans, rows = [RollupSpan(0, first, last)], _select_rows(connection, by, filter)
    if rows is not None:
        lengths = [each for each in LENGTHS if by != "day" or each <= _SECONDS["day"]]
        spans = split_numbers(first, last, read_end(connection), lengths) or spans
    pulls = [*_conditions(connection, evolve(filter, since=0.0, until=inf), now)]
    parts = [
        _sum_rollup(by, span, rows) if rows and span.seconds else _sum_pulls(by, span, pulls)
        for span in spans
    ]
    key = {"hour": "key", "day": "key", "registry": "substr(text, 1, instr(text, '/') - 1)"}.get(by, "text")
    union = " UNION ALL ".join(part for part, _ in parts)
    return connection.execute(
        f"SELECT {key}, {_OF_SUMS} FROM (SELECT key, {_OF_ROWS} FROM ({union}) GROUP BY 1)"  # noqa: S608
        " LEFT JOIN word ON word.id = key WHERE pulls > 0 GROUP BY 1 ORDER BY 1",
        [value for _, values in parts for value in values],
    ).fetchall()


def _sum_pulls(by: SumKey, span: RollupSpan, conditions: Sequence[Condition]) -> Condition:
    """Return the query for the sums of pulls, which are sorted by a number and not by a text.

    The ``+`` keeps SQLite from reading all pulls in the order of an index.
    """
    number = {
        "hour": "(pull.number >> 12) / 3600000",
        "day": "(pull.number >> 12) / 86400000",
        "client": "+pull.client",
    }.get(by, "+pull.image")
    where, values = _where([*conditions, ("pull.number >= ? AND pull.number < ?", span[1:])])
    return f"SELECT {number} AS key, {_OF_PULLS} FROM pull {where} GROUP BY 1", values  # noqa: S608


def _sum_rollup(by: SumKey, span: RollupSpan, conditions: Sequence[Condition]) -> Condition:
    number = "period * seconds / 86400" if by == "day" else "key"
    where, values = _where([("seconds = ? AND period >= ? AND period < ?", span), *conditions])
    return f"SELECT {number} AS key, {_OF_ROWS} FROM rollup {where} GROUP BY 1", values  # noqa: S608


def _select_rows(
    connection: sqlite3.Connection, by: SumKey, filter: PullFilter
) -> Sequence[Condition] | None:
    """Return the conditions of the rows in the rollup that answer a question; None if only the pulls do."""
    others = (filter.digest, filter.user, filter.outcome, filter.reason)
    if by == "hour" or any(others) or ":" in filter.image.rpartition("/")[2]:
        return None
    networks = _find_networks(connection, filter.client)
    key: Condition = ("1", ())
    if by == "client":
        kind, categories = RollupKey.CLIENT, _find_namespaces(connection, filter.image)
        if filter.client:
            clients = f"SELECT word FROM category WHERE category IN ({networks})"  # noqa: S608
            key = (
                f"key IN ({_find_clients(connection, filter.client) if networks is None else clients})",
                (),
            )
    else:
        kind, categories = RollupKey.IMAGE, networks
        if filter.image:
            key = (f"key IN ({_IDS_OF_GLOB})", (Word.IMAGE, filter.image))
    return None if categories is None else [("kind = ?", (kind,)), (f"category IN ({categories})", ()), key]


def _find_networks(connection: sqlite3.Connection, client: str) -> str | None:
    """Return the numbers of the categories that make up a network or a region; None if none do."""
    if not client:
        return "0"
    if "/" not in client:
        row = connection.execute(_ID_OF_WORD, (Word.NETWORK, client)).fetchone()
        return None if row is None else str(row[0])
    network = ip_network(client)
    length = category_length(network)
    found = connection.execute("SELECT id, text FROM word WHERE kind = ?", (Word.NETWORK,)).fetchall()
    names = (number for number, text in found if text.endswith(f"/{length}") and _is_inside(text, network))
    return None if length is None else ", ".join(map(str, names))


def _find_namespaces(connection: sqlite3.Connection, glob: str) -> str | None:
    """Return the numbers of the categories that make up a glob; None if none do."""
    if not glob:
        return "0"
    if not glob.endswith("/*") or _GLOB.search(glob[:-1]) or glob.count("/") > 2:
        return None
    found = connection.execute(_IDS_OF_GLOB, (Word.NAMESPACE, glob))
    return ", ".join(str(number) for (number,) in found)


def _where(conditions: Sequence[Condition] | Iterator[Condition]) -> tuple[str, list[object]]:
    all_of_them = list(conditions)
    text = " AND ".join(each for each, _ in all_of_them)
    return f"WHERE {text}", [value for _, values in all_of_them for value in values]


def _conditions(connection: sqlite3.Connection, filter: PullFilter, now: float) -> Iterator[Condition]:
    yield "pull.gets > 0", ()
    if filter.since > 0:
        # The beginning of running pulls is told below; SQLite finds the first row by one of the two only.
        column = "+pull.number" if filter.outcome == "running" else "pull.number"
        yield f"{column} >= ?", (first_number(filter.since),)
    if not isinf(filter.until):
        yield "pull.number < ?", (first_number(filter.until),)
    if filter.image:
        yield from _image_conditions(connection, filter.image)
    if filter.digest:
        yield _equals("digest", Word.DIGEST, filter.digest)
    if filter.user:
        yield _equals("user", Word.USER, filter.user)
    if filter.client:
        yield _client_condition(connection, filter.client)
    if filter.reason:
        yield "pull.reason != '' AND instr(pull.reason, ?) > 0", (filter.reason,)
    quiet = int((now - QUIET_SECONDS) * 1000)
    if filter.outcome == "failed":
        yield "pull.reason != ''", ()
    elif filter.outcome == "running":
        yield f"pull.reason = '' AND {_ENDED} >= ?", (quiet,)
        # A pull that runs for more than an hour has had answers of late, whose parts are known.
        hour = first_number(now - 3600)
        yield "pull.number >= min(?, ifnull((SELECT min(number) FROM part), ?))", (hour, hour)
    elif filter.outcome == "served":
        yield f"pull.reason = '' AND {_ENDED} < ?", (quiet,)
    elif filter.outcome:
        yield "0", ()


def _equals(column: str, kind: Word, text: str) -> Condition:
    """Return a condition for which SQLite uses the partial indexes, too."""
    return f"pull.{column} > 0 AND pull.{column} = ({_ID_OF_WORD})", (kind, text)


def _image_conditions(connection: sqlite3.Connection, glob: str) -> Iterator[Condition]:
    """Yield the conditions of a glob; a name without wildcards uses the index."""
    slash = glob.rfind("/") + 1
    last, _, tag = glob[slash:].partition(":")
    name = glob[:slash] + last
    if not _GLOB.search(name):
        yield _equals("image", Word.IMAGE, name)
    else:
        found = [row[0] for row in connection.execute(_IDS_OF_GLOB, (Word.IMAGE, name))]
        # Where many images match, the newest pulls are found sooner without the index.
        column = "pull.image" if len(found) <= _FEW else "+pull.image"
        yield f"{column} IN ({', '.join(map(str, found))})", ()
    if tag:
        yield "pull.reference GLOB ?", (tag,)


def _client_condition(connection: sqlite3.Connection, client: str) -> Condition:
    """Return the condition of an address, or of a network in which clients lie."""
    if "/" not in client:
        return _equals("client", Word.CLIENT, client)
    found = _find_clients(connection, client)
    some = f"SELECT 1 FROM pull WHERE client IN ({found}) LIMIT {_FEW_PULLS}"  # noqa: S608
    (count,) = connection.execute(f"SELECT count(*) FROM ({some})").fetchone()  # noqa: S608
    # The newest of many pulls are found sooner without the index.
    return f"{'pull.client' if count < _FEW_PULLS else '+pull.client'} IN ({found})", ()


def _find_clients(connection: sqlite3.Connection, client: str) -> str:
    """Return the numbers of an address, or of the clients in a network."""
    if "/" not in client:
        found = [number for (number,) in connection.execute(_ID_OF_WORD, (Word.CLIENT, client))]
    else:
        network = ip_network(client)
        rows = connection.execute("SELECT id, text FROM word WHERE kind = ?", (Word.CLIENT,))
        found = [number for number, text in rows if _is_inside(text, network)]
    return ", ".join(map(str, found))


def _is_inside(text: str, network: Network) -> bool:
    """Return whether a client, which may be a network or the name of a region, lies in a network."""
    address, _, length = text.partition("/")
    try:
        packed = inet_pton(AF_INET6 if ":" in address else AF_INET, address)
    except OSError:
        return False
    bits, shift = len(packed) * 8, network.max_prefixlen - network.prefixlen
    is_narrower = bits == network.max_prefixlen and int(length or bits) >= network.prefixlen
    return is_narrower and int.from_bytes(packed) >> shift == int(network.network_address) >> shift
