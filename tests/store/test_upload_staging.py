"""Copies of what is pushed, on a disk."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from dockmirror.interfaces import IStagedUpload, IUploadStaging
from dockmirror.oci.digest import Digest
from dockmirror.store import layout
from dockmirror.store.eviction.abandoned_partials import delete_abandoned
from dockmirror.store.upload_staging import MAX_BUFFERED, MAX_STAGED_FILES, LocalUploadStaging

from ..answering import now, watch
from .meanwhile import before
from .threads import HeldThreads, inline

NAME, OTHER = "a" * 32, "b" * 32
DATA = bytes(range(256)) * 100
DIGEST = Digest.of(DATA)


class Disk:
    """A store's directory, and the copies in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.grown: list[int] = []
        self.pushed = LocalUploadStaging(root, inline, Clock(), self.grown.append, lambda: 100_000)

    def copy(self, offset: int = 0) -> IStagedUpload:
        """A copy from there on."""
        copy = now(self.pushed.open(NAME, offset))
        assert copy is not None
        return copy

    def written(self, data: bytes, offset: int = 0) -> int | None:
        """How much there is when this was written from there on."""
        copy = self.copy(offset)
        copy.write(data)
        return now(copy.finish())

    @property
    def left(self) -> list[str]:
        """What is on its way to a name."""
        return sorted(os.listdir(self.root / layout.TEMPORARY))


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    """An empty one."""
    return Disk(tmp_path)


@pytest.fixture(autouse=True)
def _nothing_stays_open(tmp_path: Path) -> Iterator[None]:
    yield
    opened = [each.readlink() for each in Path("/proc/self/fd").iterdir() if each.exists()]
    assert not [each for each in opened if each.is_relative_to(tmp_path)]


def test_contracts(disk: Disk) -> None:
    """Are kept."""
    assert verifyObject(IUploadStaging, disk.pushed)
    copy = disk.copy()
    assert verifyObject(IStagedUpload, copy)
    assert now(copy.finish()) == 0


def test_it_is_kept(disk: Disk) -> None:
    """Whatever the parts that it came in, and counted."""
    assert disk.written(DATA[:1000]) == 1000
    assert disk.written(DATA[1000:], 1000) == len(DATA)
    assert now(disk.pushed.commit(NAME, DIGEST))
    assert (disk.root / layout.data(DIGEST)).read_bytes() == DATA
    assert disk.grown == [len(DATA)]
    assert disk.left == []


def test_it_goes_on_where_it_is_right(disk: Disk) -> None:
    """What came after that is written anew."""
    disk.written(DATA[:1000] + b"wrong")
    assert disk.written(DATA[1000:], 1000) == len(DATA)
    assert now(disk.pushed.commit(NAME, DIGEST))


def test_what_is_wrong(disk: Disk) -> None:
    """Is never held, and nothing of it stays."""
    disk.written(DATA + b"!")
    assert not now(disk.pushed.commit(NAME, DIGEST))
    assert not (disk.root / layout.data(DIGEST)).exists()
    assert (disk.left, disk.grown) == ([], [])


def test_what_is_not_there(disk: Disk) -> None:
    """Can be neither gone on with nor kept."""
    assert now(disk.pushed.open(NAME, 1)) is None
    assert not now(disk.pushed.commit(OTHER, DIGEST))
    now(disk.pushed.drop(OTHER))
    assert disk.left == []


def test_one_at_a_time(disk: Disk) -> None:
    """Who comes second keeps nothing."""
    copy = disk.copy()
    assert now(disk.pushed.open(NAME, 0)) is None
    now(copy.finish())
    now(disk.copy().finish())


def test_what_is_still_written_to(disk: Disk) -> None:
    """Is not kept: what comes after the look would be held as if it had been looked at."""
    copy = disk.copy()
    copy.write(DATA)
    assert not now(disk.pushed.commit(NAME, DIGEST))
    copy.write(b"!")
    now(copy.finish())
    assert not (disk.root / layout.data(DIGEST)).exists()
    assert (disk.left, disk.grown) == ([], [])


def test_what_is_kept_while_it_is_opened(disk: Disk) -> None:
    """Is written to no more."""
    disk.written(DATA)
    with before(fcntl.flock, lambda: now(disk.pushed.commit(NAME, DIGEST))):
        assert now(disk.pushed.open(NAME, 1000)) is None
    assert (disk.root / layout.data(DIGEST)).read_bytes() == DATA


def test_what_is_too_large(disk: Disk) -> None:
    """Is given up: nothing fails by it."""
    assert disk.written(bytes(100_001)) is None


def test_all_of_them_are_bounded(tmp_path: Path) -> None:
    """What is not copied leaves nothing, and takes nothing from what was."""
    clock, most = Clock(), 10 * 1024 * 1024
    pushed = LocalUploadStaging(tmp_path, inline, clock, lambda _: None, lambda: most)
    piece, kept = bytes(1024 * 1024), []
    copies = [now(pushed.open(f"{number:032x}", 0)) for number in range(4)]
    for copy in copies:
        assert copy is not None
        for _ in range(6):
            copy.write(piece)
        kept.append(now(copy.finish()))
    assert kept == [6 * len(piece), None, None, None]
    written = list((tmp_path / layout.TEMPORARY).iterdir())
    assert sum(path.stat().st_size for path in written) == 6 * len(piece)
    for number in range(10, 14):
        copy = now(pushed.open(f"{number:032x}", 0))
        if copy is not None:
            copy.write(piece * 3)
            now(copy.finish())
    assert sum(path.stat().st_size for path in (tmp_path / layout.TEMPORARY).iterdir()) < most + 3 * len(
        piece
    )


def test_very_many(disk: Disk) -> None:
    """Small ones are not copied from some number on."""
    for number in range(MAX_STAGED_FILES + 10):
        copy = now(disk.pushed.open(f"{number:032x}", 0))
        if copy is not None:
            now(copy.finish())
    assert len(disk.left) == MAX_STAGED_FILES + 1


def test_what_is_given_up_leaves_nothing(disk: Disk) -> None:
    """The client goes on without a copy."""
    assert disk.written(bytes(100_001)) is None
    assert disk.left == []


def test_a_disk_that_takes_nothing(tmp_path: Path) -> None:
    """Costs the copy alone."""
    (tmp_path / "file").write_bytes(b"")
    disk = Disk(tmp_path / "file")
    assert now(disk.pushed.open(NAME, 0)) is None


def test_a_disk_that_does_not_follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the copy given up, before much of it waits in memory."""
    threads, clock = HeldThreads(), Clock()
    pushed = LocalUploadStaging(tmp_path, threads, clock, lambda _: None, lambda: 10**9)
    opening = watch(pushed.open(NAME, 0))
    threads.run()
    (copy,) = opening
    assert not isinstance(copy, BaseException)
    assert copy is not None
    monkeypatch.setattr(clock, "seconds", iter(range(100)).__next__)  # each write takes a second
    copy.write(b"slow")
    for _ in range(9):
        copy.write(bytes(MAX_BUFFERED // 8))
    ended = watch(copy.finish())
    while threads.held:
        threads.run()
    assert ended == [None]


def test_who_does_not_go_on(disk: Disk) -> None:
    """Has the copy dropped after an hour, like a dead writer's."""
    disk.written(b"a")
    modified = (disk.root / layout.TEMPORARY / disk.left[0]).stat().st_mtime
    delete_abandoned(disk.root, modified + 3599)
    assert len(disk.left) == 1
    delete_abandoned(disk.root, modified + 3601)
    assert disk.left == []
