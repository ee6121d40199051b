"""Staged copies of pushed blobs."""

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
from dockmirror.store.eviction.removal import delete_abandoned
from dockmirror.store.upload_staging import MAX_BUFFERED, MAX_STAGED_FILES, LocalUploadStaging

from ..answering import now, watch
from .downloads.upstream import all_closed
from .threads import HeldThreads, before, inline

NAME, OTHER = "a" * 32, "b" * 32
DATA = bytes(range(256)) * 100
DIGEST = Digest.of(DATA)


class Disk:
    """A store's directory with staged copies."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.added: list[int] = []
        self.staging = LocalUploadStaging(root, inline, Clock(), self.added.append, lambda: 100_000)

    def copy(self, offset: int = 0) -> IStagedUpload:
        copy = now(self.staging.open(NAME, offset))
        assert copy is not None
        return copy

    def written(self, data: bytes, offset: int = 0) -> int | None:
        copy = self.copy(offset)
        copy.write(data)
        return now(copy.finish())

    @property
    def left(self) -> list[str]:
        return sorted(os.listdir(self.root / layout.TEMPORARY))


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


@pytest.fixture(autouse=True)
def _nothing_stays_open(tmp_path: Path) -> Iterator[None]:
    with all_closed(tmp_path):
        yield


def test_interfaces(disk: Disk) -> None:
    assert verifyObject(IUploadStaging, disk.staging)
    copy = disk.copy()
    assert verifyObject(IStagedUpload, copy)
    assert now(copy.finish()) == 0


@pytest.mark.parametrize("beyond", [b"", b"wrong"])
def test_commit(disk: Disk, beyond: bytes) -> None:
    """A copy of any number of parts is committed and counted; each part replaces all beyond its offset."""
    assert disk.written(DATA[:1000] + beyond) == 1000 + len(beyond)
    assert disk.written(DATA[1000:], 1000) == len(DATA)
    assert now(disk.staging.commit(NAME, DIGEST))
    assert (disk.root / layout.data(DIGEST)).read_bytes() == DATA
    assert (disk.added, disk.left) == ([len(DATA)], [])


def test_wrong_bytes(disk: Disk) -> None:
    """A copy that does not match the digest is deleted."""
    disk.written(DATA + b"!")
    assert not now(disk.staging.commit(NAME, DIGEST))
    assert not (disk.root / layout.data(DIGEST)).exists()
    assert (disk.left, disk.added) == ([], [])


def test_missing_copy(disk: Disk) -> None:
    """A missing copy can be neither resumed nor committed, nor one without a directory opened."""
    assert now(disk.staging.open(NAME, 1)) is None
    assert not now(disk.staging.commit(OTHER, DIGEST))
    now(disk.staging.drop(OTHER))
    assert disk.left == []
    (disk.root / "file").touch()
    assert now(Disk(disk.root / "file").staging.open(NAME, 0)) is None


def test_one_writer(disk: Disk) -> None:
    """A copy that is written to has no second writer, and is not committed."""
    copy = disk.copy()
    copy.write(DATA)
    assert now(disk.staging.open(NAME, 0)) is None
    assert not now(disk.staging.commit(NAME, DIGEST))
    copy.write(b"!")
    now(copy.finish())
    assert not (disk.root / layout.data(DIGEST)).exists()
    assert (disk.left, disk.added) == ([], [])


def test_committed_while_opened(disk: Disk) -> None:
    """A copy that is committed while it is opened is not written to."""
    disk.written(DATA)
    with before(fcntl.flock, lambda: now(disk.staging.commit(NAME, DIGEST))):
        assert now(disk.staging.open(NAME, 1000)) is None
    assert (disk.root / layout.data(DIGEST)).read_bytes() == DATA


def test_too_large(disk: Disk) -> None:
    """A copy that is too large is given up and deleted without an error."""
    assert disk.written(bytes(100_001)) is None
    assert disk.left == []


def test_total_limit(tmp_path: Path) -> None:
    """A copy that exceeds the total limit is given up and leaves the others alone."""
    limit, piece = 10 * 1024 * 1024, bytes(1024 * 1024)
    pushed = LocalUploadStaging(tmp_path, inline, Clock(), lambda _: None, lambda: limit)
    lengths = []
    for number in range(4):
        copy = now(pushed.open(f"{number:032x}", 0))
        assert copy is not None
        for _ in range(6):
            copy.write(piece)
        lengths.append(now(copy.finish()))
    assert lengths == [6 * len(piece), None, None, None]
    for number in range(10, 14):
        copy = now(pushed.open(f"{number:032x}", 0))
        if copy is not None:
            copy.write(piece * 3)
            now(copy.finish())
    size = sum(path.stat().st_size for path in (tmp_path / layout.TEMPORARY).iterdir())
    assert 6 * len(piece) <= size < limit + 3 * len(piece)


def test_maximum_number(disk: Disk) -> None:
    """The number of copies is limited."""
    disk.written(DATA)
    for number in range(MAX_STAGED_FILES):
        (disk.root / layout.TEMPORARY / f"push-{number:032x}").touch()
    assert now(disk.staging.open(OTHER, 0)) is None
    (disk.root / layout.TEMPORARY / f"push-{0:032x}").unlink()
    copy = now(disk.staging.open(OTHER, 0))
    assert copy is not None
    now(copy.finish())


def test_slow_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy is given up before much of it waits in memory for a slow disk."""
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


def test_abandoned_copy(disk: Disk) -> None:
    """A copy that is unused for an hour is deleted."""
    disk.written(b"a")
    modified = (disk.root / layout.TEMPORARY / disk.left[0]).stat().st_mtime
    delete_abandoned(disk.root, modified + 3599)
    assert len(disk.left) == 1
    delete_abandoned(disk.root, modified + 3601)
    assert disk.left == []


def test_stop_during_verification(disk: Disk) -> None:
    """If the process stops while a copy is verified, the copy stays until it counts as abandoned."""
    disk.written(DATA)
    threads = HeldThreads()
    staging = LocalUploadStaging(disk.root, threads, Clock(), disk.added.append, lambda: 100_000)
    committing = staging.commit(NAME, DIGEST)
    committing.send(None)
    threads.run()  # the copy is opened
    committing.send(None)
    committing.close()
    threads.run()  # the thread that was reading ends
    assert len(disk.left) == 1
    now(disk.staging.drop(NAME))
