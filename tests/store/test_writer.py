"""A file that grows, on a disk that is quick, slow or full."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from dockmirror.concurrency.coroutines import RunInThread
from dockmirror.oci.digest import Digest
from dockmirror.store.downloads.partial_file import PartialFile, PartialPaths
from dockmirror.store.file_body import FileReader
from dockmirror.store.writer import HASH_STEP, SLOW_WRITE, AsyncFileWriter, BackgroundHasher

from ..answering import watch
from .threads import HeldThreads, inline


class Disk(PartialFile):
    """A partial file that takes a while for what it is given, or fails.

    :ivar seconds: how long.
    :ivar written: the sizes of what it was given.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        super().__init__(
            PartialPaths.of(path.parent, "r", Digest.of(b"")), os.open(path, os.O_RDWR | os.O_CREAT)
        )
        self.path = path
        self.seconds = 0.0
        self.error: OSError | None = None
        self.written: list[int] = []
        self._clock = clock

    def write(self, data: bytes, offset: int) -> None:
        self._clock.advance(self.seconds)
        if self.error is not None:
            raise self.error
        self.written.append(len(data))
        super().write(data, offset)


class Writing:
    """A writer, its disk, and what it reports."""

    def __init__(self, path: Path) -> None:
        clock = Clock()
        self.disk = Disk(path, clock)
        self.threads = HeldThreads()
        self.lengths: list[int] = []
        self.errors: list[OSError] = []
        self.file = FileReader(self.disk.descriptor, self.threads)
        self.writer = AsyncFileWriter(self.disk.write, self.file, 0, clock, self._grew, self.errors.append)

    def _grew(self) -> None:
        self.lengths.append(self.writer.length)


@pytest.fixture
def writing(tmp_path: Path) -> Iterator[Writing]:
    """An empty file."""
    writing = Writing(tmp_path / "file")
    yield writing
    writing.file.close()


def test_a_quick_disk_is_written_to_at_once(writing: Writing) -> None:
    """A quick disk is written to at once, without a thread."""
    for piece in (b"a", b"bc"):
        writing.writer.write(piece)
    assert (writing.lengths, writing.threads.held, writing.disk.path.read_bytes()) == ([1, 3], 0, b"abc")


def test_a_slow_disk_is_written_to_in_threads(writing: Writing) -> None:
    """After a long write pending pieces are written together in threads, until the disk is quick."""
    assert watch(writing.writer.flushed()) == [None]
    writing.disk.seconds = 2 * SLOW_WRITE
    for piece in (b"a", b"b", b"c", b"d"):
        writing.writer.write(piece)
    flushed = watch(writing.writer.flushed())
    assert (writing.lengths, writing.writer.pending, writing.threads.held) == ([1], 3, 1)
    writing.threads.run()
    assert (writing.lengths, writing.writer.pending, writing.threads.held) == ([1, 2], 2, 1)
    assert flushed == []
    writing.disk.seconds = 0
    writing.threads.run()
    assert (writing.lengths, writing.writer.pending, writing.threads.held) == ([1, 2, 4], 0, 0)
    assert flushed == [None]
    writing.writer.write(b"e")
    assert (writing.lengths, writing.threads.held) == ([1, 2, 4, 5], 0)
    assert (writing.disk.written, writing.disk.path.read_bytes()) == ([1, 1, 2, 1], b"abcde")


def test_pending_bytes_are_dropped_when_the_disk_fails(writing: Writing) -> None:
    """Pending bytes are dropped when the disk fails, and the writer reports why."""
    writing.disk.seconds = 2 * SLOW_WRITE
    for piece in (b"a", b"b", b"c"):
        writing.writer.write(piece)
    writing.disk.error = OSError("no space left")
    writing.threads.run()
    assert (writing.errors, writing.lengths, writing.threads.held) == ([writing.disk.error], [1], 0)
    writing.disk.error = None
    assert watch(writing.writer.flushed()) == [None]


def hasher(path: Path, data: bytes, in_thread: RunInThread = inline) -> BackgroundHasher:
    """Return a hasher of a file with these bytes."""
    path.write_bytes(data)
    return BackgroundHasher(Digest.of(data), FileReader(os.open(path, os.O_RDONLY), in_thread))


def test_bytes_are_hashed_in_steps(tmp_path: Path) -> None:
    """A thread is given one step at a time, as long as the hash is wanted, and no more than is asked for."""
    threads, wanted = HeldThreads(), [True]
    hashing = hasher(tmp_path / "file", bytes(2 * HASH_STEP), threads)
    outcome = watch(hashing.catch_up(2 * HASH_STEP, lambda: wanted[0]))
    wanted[0] = False
    threads.run()
    assert (outcome, hashing.hashed, threads.held) == ([None], HASH_STEP, 0)
    outcome = watch(hashing.catch_up(2 * HASH_STEP - 100))
    threads.run()
    assert (outcome, hashing.hashed) == ([None], 2 * HASH_STEP - 100)
    matches = watch(hashing.matches(2 * HASH_STEP))
    threads.run()
    assert matches == [True]
    hashing.file.close()


def test_a_disk_that_gives_nothing_to_hash_is_not_asked_again(tmp_path: Path) -> None:
    """A hasher fails again with the first error."""
    threads, error = HeldThreads(), OSError("input/output error")
    hashing = hasher(tmp_path / "file", b"data", threads)
    outcome = watch(hashing.matches(4))
    threads.fail(error)
    assert [*outcome, *watch(hashing.matches(4))] == [error, error]
    assert threads.held == 0
    hashing.file.close()


def test_a_file_that_was_cut_short_cannot_be_hashed(tmp_path: Path) -> None:
    """A file that is shorter than it was is an error of the disk."""
    hashing = hasher(tmp_path / "file", b"data")
    assert isinstance(watch(hashing.matches(5))[0], OSError)
    hashing.file.close()
