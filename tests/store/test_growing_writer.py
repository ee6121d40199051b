"""What has come of a blob, on its way to a disk that is quick, slow or full."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from dockmirror.oci.digest import Digest
from dockmirror.store.growing.partial import Partial, Place
from dockmirror.store.growing.writer import SLOW, Writer
from dockmirror.store.reader import FileReader

from ..answering import watch
from .threads import HeldThreads


class Disk(Partial):
    """Takes a while for what it is given, or fails.

    :ivar seconds: how long.
    :ivar written: the sizes of what it was given.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        super().__init__(Place.of(path.parent, "r", Digest.of(b"")), os.open(path, os.O_RDWR | os.O_CREAT))
        self.path = path
        self.seconds = 0.0
        self.error: OSError | None = None
        self.written: list[int] = []
        self._clock = clock

    def write(self, data: bytes, offset: int) -> None:
        """See ``Partial``."""
        self._clock.advance(self.seconds)
        if self.error is not None:
            raise self.error
        self.written.append(len(data))
        super().write(data, offset)


class Here:
    """A writer, its disk, and what it says."""

    def __init__(self, path: Path) -> None:
        clock = Clock()
        self.disk = Disk(path, clock)
        self.threads = HeldThreads()
        self.lengths: list[int] = []
        self.errors: list[OSError] = []
        self.file = FileReader(self.disk.file, self.threads)
        self.writer = Writer(self.disk, self.file, 0, clock, self._grew, self.errors.append)

    def _grew(self) -> None:
        self.lengths.append(self.writer.length)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    """An empty file."""
    here = Here(tmp_path / "file")
    yield here
    here.file.close()


def test_quick(here: Here) -> None:
    """Each piece is written at once, and no thread is asked."""
    for piece in (b"a", b"bc"):
        here.writer.write(piece)
    assert (here.lengths, here.threads.held, here.disk.path.read_bytes()) == ([1, 3], 0, b"abc")


def test_slow(here: Here) -> None:
    """After a write that took long the next ones go to a thread, together; the reactor waits no more."""
    here.disk.seconds = 2 * SLOW
    for piece in (b"a", b"b", b"c", b"d"):
        here.writer.write(piece)
    assert (here.lengths, here.writer.waiting, here.threads.held) == ([1], 3, 1)
    here.threads.run()
    assert (here.lengths, here.writer.waiting, here.threads.held) == ([1, 2], 2, 1)
    here.threads.run()
    assert (here.lengths, here.writer.waiting, here.threads.held) == ([1, 2, 4], 0, 0)
    here.writer.write(b"e")
    assert here.threads.held == 1
    here.threads.run()
    assert (here.disk.written, here.disk.path.read_bytes()) == ([1, 1, 2, 1], b"abcde")


def test_quick_again(here: Here) -> None:
    """As soon as a thread has written quickly, and nothing waits, it is written at once again."""
    here.disk.seconds = 2 * SLOW
    here.writer.write(b"a")
    here.writer.write(b"b")
    here.disk.seconds = 0
    here.writer.write(b"c")
    here.threads.run()
    here.writer.write(b"d")
    assert (here.lengths, here.threads.held) == ([1, 2], 1)
    here.threads.run()
    here.threads.run()
    here.writer.write(b"e")
    assert (here.lengths, here.threads.held) == ([1, 2, 3, 4, 5], 0)
    assert here.disk.path.read_bytes() == b"abcde"


def test_full(here: Here) -> None:
    """What waits for a disk that takes nothing is dropped, and said why."""
    here.disk.seconds = 2 * SLOW
    for piece in (b"a", b"b", b"c"):
        here.writer.write(piece)
    here.disk.error = OSError("no space left")
    here.threads.run()
    assert (here.errors, here.lengths, here.threads.held) == ([here.disk.error], [1], 0)
    here.disk.error = None
    assert watch(here.writer.flushed()) == [None]


def test_flushed(here: Here) -> None:
    """Fires when all is written that was taken, and at once where that is so."""
    assert watch(here.writer.flushed()) == [None]
    here.disk.seconds = 2 * SLOW
    for piece in (b"a", b"b", b"c"):
        here.writer.write(piece)
    flushed = watch(here.writer.flushed())
    here.threads.run()
    assert flushed == []
    here.threads.run()
    assert (flushed, here.lengths) == ([None], [1, 2, 3])
