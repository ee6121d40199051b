"""The file of the history: SQLite in WAL mode, shared by the processes of one machine."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from enum import IntEnum
from pathlib import Path

from twisted.logger import Logger

from ..system.posix import MOUNTS, chown_to_parent, explain_unwritable, find_network_file_system

FILE_NAME = "pulls.db"
_VERSION = 2
BUSY_SECONDS = 2.0
"""Seconds for which a thread waits for another process that writes."""
_SCHEMA = """
CREATE TABLE word (id INTEGER PRIMARY KEY, kind INTEGER NOT NULL, text TEXT NOT NULL, UNIQUE (kind, text));
CREATE TABLE pull (
    number INTEGER PRIMARY KEY, milliseconds INTEGER NOT NULL DEFAULT 0,
    client INTEGER NOT NULL, user INTEGER NOT NULL, host INTEGER NOT NULL, image INTEGER NOT NULL,
    reference TEXT NOT NULL, digest INTEGER NOT NULL DEFAULT 0, platform INTEGER NOT NULL DEFAULT 0,
    gets INTEGER NOT NULL DEFAULT 0,
    layers INTEGER NOT NULL DEFAULT 0, cached_layers INTEGER NOT NULL DEFAULT 0,
    cached_bytes INTEGER NOT NULL DEFAULT 0, upstream_bytes INTEGER NOT NULL DEFAULT 0,
    saved_requests INTEGER NOT NULL DEFAULT 0, saved_pulls INTEGER NOT NULL DEFAULT 0,
    upstream_milliseconds INTEGER NOT NULL DEFAULT 0, reason TEXT NOT NULL DEFAULT ''
);
CREATE INDEX pull_image ON pull (image);
CREATE INDEX pull_client ON pull (client);
CREATE INDEX pull_user ON pull (user) WHERE user > 0;
CREATE INDEX pull_owner ON pull (user, client) WHERE user > 0;
CREATE INDEX pull_digest ON pull (digest) WHERE digest > 0;
CREATE INDEX pull_failed ON pull (
    number, client, image, gets, cached_bytes, upstream_bytes, saved_requests, saved_pulls,
    milliseconds, upstream_milliseconds, reason
) WHERE reason != '';
CREATE TABLE part (
    number INTEGER NOT NULL, name INTEGER NOT NULL, ended REAL NOT NULL,
    is_layer INTEGER NOT NULL, is_cached INTEGER NOT NULL, reason TEXT NOT NULL,
    PRIMARY KEY (number, name)
) WITHOUT ROWID;
CREATE TABLE sums (
    kind INTEGER NOT NULL, period INTEGER NOT NULL, key INTEGER NOT NULL,
    pulls INTEGER NOT NULL, failed INTEGER NOT NULL,
    cached_bytes INTEGER NOT NULL, upstream_bytes INTEGER NOT NULL,
    saved_requests INTEGER NOT NULL, saved_pulls INTEGER NOT NULL,
    milliseconds INTEGER NOT NULL, upstream_milliseconds INTEGER NOT NULL,
    PRIMARY KEY (kind, period, key)
) WITHOUT ROWID;
CREATE TABLE rollup (
    kind INTEGER NOT NULL, seconds INTEGER NOT NULL, period INTEGER NOT NULL,
    category INTEGER NOT NULL, key INTEGER NOT NULL,
    pulls INTEGER NOT NULL, failed INTEGER NOT NULL,
    cached_bytes INTEGER NOT NULL, upstream_bytes INTEGER NOT NULL,
    saved_requests INTEGER NOT NULL, saved_pulls INTEGER NOT NULL,
    milliseconds INTEGER NOT NULL, upstream_milliseconds INTEGER NOT NULL,
    PRIMARY KEY (kind, seconds, period, category, key)
) WITHOUT ROWID;
CREATE TABLE category (
    word INTEGER NOT NULL, category INTEGER NOT NULL, PRIMARY KEY (word, category)
) WITHOUT ROWID;
INSERT INTO category VALUES (0, 0);
CREATE TABLE rollup_end (number INTEGER NOT NULL);
INSERT INTO rollup_end VALUES (0);
CREATE TABLE pruned (time REAL NOT NULL);
INSERT INTO pruned VALUES (0);
CREATE TABLE fleet (id TEXT NOT NULL, tried REAL NOT NULL, uploaded REAL NOT NULL);
INSERT INTO fleet SELECT lower(hex(randomblob(8))), 0, 0;
"""
AMOUNTS = (
    "pulls", "failed", "cached_bytes", "upstream_bytes", "saved_requests", "saved_pulls", "milliseconds",
    "upstream_milliseconds",
)  # fmt: skip
"""The columns of all sums."""
SUMS_OF_PULLS = ("count(*)", "sum(reason != '')", *(f"sum({name})" for name in AMOUNTS[2:]))
_BROKEN = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_log = Logger()


class Word(IntEnum):
    """The kinds of texts that rows refer to by a number; 0 stands for an empty text."""

    CLIENT = 1
    USER = 2
    HOST = 3
    IMAGE = 4
    DIGEST = 5
    PLATFORM = 6
    REGISTRY = 7
    NETWORK = 8
    NAMESPACE = 9


class Sums(IntEnum):
    """The kinds of sums: of all pulls by the hour, of others by the day (UTC)."""

    HOUR = 0
    REGISTRY = 1
    REPOSITORY = 2
    CLIENT = 3


class UnusableHistory(Exception):
    """Raised if a directory cannot hold the history; the message is a sentence for the operator."""


def prepare_directory(directory: Path, mounts: Path = MOUNTS) -> Path:
    """Make the directory if it is missing, and return the file in it.

    :raises UnusableHistory: when the directory cannot be made, or lies on a network file system, where
        processes cannot share the file's memory.
    """
    try:
        if not directory.is_dir():
            directory.mkdir(0o700, parents=True, exist_ok=True)
            chown_to_parent(directory)
    except FileExistsError:
        raise UnusableHistory(f"{directory} is not a directory") from None
    except OSError as error:
        raise UnusableHistory(explain_unwritable(directory, error)) from None
    require_local_history(directory, mounts)
    return directory / FILE_NAME


def require_local_history(directory: Path, mounts: Path = MOUNTS) -> None:
    """:raises UnusableHistory: if a directory, which may be missing, lies on a network file system."""
    kind = find_network_file_system(directory, mounts)
    if kind is not None:
        raise UnusableHistory(f"{directory} lies on a network file system ({kind}); use a local disk")


def open_for_writing(path: Path, busy_seconds: float = BUSY_SECONDS) -> sqlite3.Connection:
    """Open the file, which is created if it is missing, and begun anew if it is broken.

    :raises sqlite3.Error: when it cannot be used.
    """
    try:
        return _open(path, busy_seconds)
    except sqlite3.DatabaseError as error:
        if not is_broken(error):
            raise
        set_aside(path, error)
        return _open(path, busy_seconds)


def _open(path: Path, busy_seconds: float) -> sqlite3.Connection:
    with suppress(FileExistsError, OSError):  # what else is wrong, SQLite will say
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        chown_to_parent(path)
    connection = sqlite3.connect(path, timeout=busy_seconds, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA journal_size_limit = {4 * 1024 * 1024}")
        with transaction(connection):
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in _SCHEMA.split(";\n"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {_VERSION}")
            else:
                _check_version(version)
    except BaseException:
        connection.close()
        raise
    return connection


def open_for_reading(path: Path) -> sqlite3.Connection:
    """:raises sqlite3.Error: when there is no file, or it cannot be read."""
    connection = _connect_for_reading(path)
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        _check_version(version or _VERSION)  # it is 0 until the first process has made the tables
    except BaseException:
        connection.close()
        raise
    return connection


def _connect_for_reading(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro", timeout=BUSY_SECONDS, uri=True, isolation_level=None
    )


def _check_version(version: int) -> None:
    if version != _VERSION:
        raise VersionError(
            f"it has format {version}, and this version of dockmirror knows format {_VERSION} only"
        )


class VersionError(sqlite3.DatabaseError):
    """Raised if the file has a format that this version does not know; it is left as it is."""


def is_broken(error: Exception) -> bool:
    """Return whether the file can never be used again."""
    return (getattr(error, "sqlite_errorcode", 0) & 0xFF) in _BROKEN


def is_locked(error: Exception) -> bool:
    """Return whether another process uses the file, so that a later attempt may succeed."""
    locked = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    return (getattr(error, "sqlite_errorcode", 0) & 0xFF) in locked


def set_aside(path: Path, error: Exception) -> None:
    """Rename a broken file, unless another process has done so already."""
    aside = path.with_name(f"{path.name}.broken")
    with lock(path):
        try:
            with closing(_connect_for_reading(path)) as connection:
                is_sound = connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
        except sqlite3.Error:
            is_sound = False
        if is_sound:
            return
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        path.replace(aside)
    _log.error(
        "the history {path} is broken ({error}): it was renamed to {aside}, and a new one begun",
        path=str(path), error=str(error), aside=aside.name,
    )  # fmt: skip


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold the lock of the processes that set the file aside."""
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Write in one transaction, which is rolled back when an error is raised."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def number_word(connection: sqlite3.Connection, kind: Word, text: str) -> int:
    """Return the number of a text; within a transaction, because others may delete unused ones."""
    row = connection.execute("SELECT id FROM word WHERE kind = ? AND text = ?", (kind, text)).fetchone()
    if row is None:
        insert = "INSERT INTO word (kind, text) VALUES (?, ?) RETURNING id"
        row = connection.execute(insert, (kind, text)).fetchone()
    return int(row[0])
