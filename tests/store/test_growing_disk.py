"""Blobs on their way in, on a disk that takes or gives nothing."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from twisted.internet.defer import CancelledError
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from zope.interface import provider

from dockmirror.content.verified import HOLD, Corrupt
from dockmirror.oci.descriptor import Descriptor
from dockmirror.oci.errors import Denied, Unavailable
from dockmirror.oci.ranges import ContentRange
from dockmirror.store.growing.hashing import STEP
from dockmirror.store.growing.intake import BEHIND

from .upstream import PIECE, Client, FileClient, Mirror, Source, Upstream, all_closed, open_files

DATA = os.urandom(1000 * 1000)
SIZE = len(DATA)
HALF = SIZE // 2


@pytest.fixture
def upstream() -> Upstream:
    """Has the blob."""
    return Upstream(DATA)


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    """Holds nothing yet."""
    with all_closed(tmp_path):
        yield Mirror(tmp_path, DATA)


@pytest.fixture
def log() -> Iterator[list[str]]:
    """What is logged."""
    lines: list[str] = []

    @provider(ILogObserver)
    def observe(event: LogEvent) -> None:
        lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


@contextmanager
def full(size: int) -> Iterator[None]:
    """No file grows beyond that size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def part(first: int, last: int) -> ContentRange:
    """A part of the blob."""
    return ContentRange(first, last, SIZE)


def finish(upstream: Upstream, mirror: Mirror) -> None:
    """All that was begun is sent."""
    for _ in range(3):
        for body in upstream.bodies:
            if not body.over:
                body.finish()
        mirror.turn(times=10)


@pytest.mark.parametrize("taken", [0, 1, HALF, SIZE - HOLD, SIZE - 10])
@pytest.mark.parametrize("told", [True, False])
def test_full(mirror: Mirror, upstream: Upstream, log: list[str], taken: int, told: bool) -> None:
    """Each reader goes on by itself from where the file ends, and all is right; the part is removed."""
    upstream.size = SIZE if told else None
    clients = [mirror.read(Source(upstream)) for _ in range(2)]
    early = mirror.read(Source(upstream), part(0, 0))
    ranged = [mirror.read(Source(upstream), part(*ends)) for ends in ENDS]
    upstream.body.send(10)
    clients[1].pause()
    with full(taken):
        upstream.body.send()
    assert upstream.bodies[0].cancelled
    assert os.listdir(mirror.part.parent) == []
    assert len(log) == 1
    mirror.turn(times=10)
    clients[1].resume()
    mirror.turn(times=10)
    assert open_files(mirror.root) == []
    finish(upstream, mirror)
    assert [client.received for client in clients] == [DATA] * 2
    assert [client.outcome for client in [*clients, early, *ranged]] == [True] * 7
    assert [client.received for client in ranged] == [DATA[first : last + 1] for first, last in ENDS]
    assert upstream.opens.count(10 + max(0, taken - 10) // PIECE * PIECE) >= 2
    assert not mirror.growing
    assert not mirror.blob.exists()


ENDS = [(5, HALF), (HALF + 1, SIZE - HOLD - 1), (SIZE - 20, SIZE - 11), (SIZE - 9, SIZE - 1)]


def test_wrong_then(mirror: Mirror, upstream: Upstream) -> None:
    """What is wrong after all is cut off."""
    client = mirror.read(Source(upstream))
    with full(HALF):
        upstream.body.send()
    mirror.turn(times=10)
    upstream.body.send_these(os.urandom(SIZE - HALF)).end()
    assert isinstance(client.outcome, Corrupt)
    assert HALF < len(client.received) <= SIZE - HOLD


def test_too_long_then(mirror: Mirror, upstream: Upstream) -> None:
    """So is what is too long."""
    client = mirror.read(Source(upstream))
    with full(HALF):
        upstream.body.send()
    mirror.turn(times=10)
    upstream.body.send_these(DATA[HALF:] + b"x").end()
    assert isinstance(client.outcome, Corrupt)


def test_broken_off_then(mirror: Mirror, upstream: Upstream) -> None:
    """A reader that goes on by itself does so again where the upstream breaks off."""
    client = mirror.read(Source(upstream))
    with full(HALF):
        upstream.body.send()
    mirror.turn(times=10)
    upstream.body.send(1000).break_off()
    mirror.turn(times=10)
    finish(upstream, mirror)
    assert (client.received, client.outcome) == (DATA, True)
    assert upstream.opens == [0, HALF, HALF + 1000]


def test_refused_then(mirror: Mirror, upstream: Upstream) -> None:
    """A reader whose source is refused is cut off."""
    source = Source(upstream)
    client = mirror.read(source)
    source.refusal = Denied()
    with full(HALF):
        upstream.body.send()
    mirror.turn(times=10)
    assert isinstance(client.outcome, Denied)
    assert client.received == DATA[:HALF]


def test_leaves_then(mirror: Mirror, upstream: Upstream) -> None:
    """A reader may leave as ever."""
    client = mirror.read(Source(upstream))
    with full(HALF):
        upstream.body.send()
    mirror.turn(times=10)
    upstream.body.send(10)
    client.leave()
    assert isinstance(client.outcome, CancelledError)
    assert upstream.body.cancelled


def test_paced_then(mirror: Mirror, upstream: Upstream) -> None:
    """The reader's pace is the upstream's from then on."""
    client = mirror.read(Source(upstream))
    with full(HALF):
        upstream.body.send()
    mirror.turn(times=10)
    client.pause()
    assert upstream.body.paused
    client.resume()
    assert not upstream.body.paused
    finish(upstream, mirror)
    assert client.received == DATA


def test_logged_once(tmp_path: Path, upstream: Upstream, log: list[str]) -> None:
    """Until something was kept again."""
    mirror = Mirror(tmp_path, DATA)
    for _ in range(3):
        client = mirror.read(Source(upstream))
        with full(HALF):
            upstream.body.send()
        mirror.turn(times=10)
        finish(upstream, mirror)
        assert client.outcome is True
    assert len(log) == 1
    assert client.received == DATA
    kept = mirror.read(Source(upstream))
    finish(upstream, mirror)
    assert kept.outcome is True
    mirror.blob.unlink()
    client = mirror.read(Source(upstream))
    with full(HALF):
        upstream.body.send()
    client.leave()
    assert len(log) == 2


def test_nothing_can_be_made(tmp_path: Path, upstream: Upstream, log: list[str]) -> None:
    """A join says so where the growing file cannot be made: nothing was asked for."""
    (tmp_path / "dockmirror").write_bytes(b"")
    mirror = Mirror(tmp_path, DATA)
    joinings = [mirror.join(Source(upstream)) for _ in range(2)]
    assert [type(joining.error) for joining in joinings] == [NotADirectoryError] * 2
    assert (upstream.opens, mirror.growing, len(log)) == ([], False, 1)


def test_size_cannot_be_told(mirror: Mirror, upstream: Upstream) -> None:
    """A join says so where not even the size can be written; what was offered is given back."""
    with full(0):
        joining = mirror.join(Source(upstream))
    assert isinstance(joining.error, OSError)
    assert upstream.body.discarded
    assert os.listdir(mirror.part.parent) == []


def test_cannot_be_named(mirror: Mirror, upstream: Upstream, log: list[str]) -> None:
    """Readers of a blob that is right and cannot be kept get all of it."""
    (mirror.root / "docker").write_bytes(b"")
    quick, slow = mirror.read(Source(upstream)), mirror.read(Source(upstream))
    slow.pause()
    upstream.body.finish()
    slow.resume()
    mirror.turn(times=10)
    assert quick.received == slow.received == DATA
    assert (os.listdir(mirror.part.parent), len(log)) == ([], 1)
    assert mirror.contents.links == []


def test_full_and_sent(mirror: Mirror, upstream: Upstream) -> None:
    """One that takes bytes of files is sent what the disk took, and written the rest."""
    client = FileClient(SIZE)
    mirror.read(Source(upstream), client=client)
    with full(HALF):
        upstream.body.send()
    finish(upstream, mirror)
    assert (client.received, client.outcome) == (DATA, True)
    assert client.sent == HALF // PIECE * PIECE


def test_disk_loses_bytes(mirror: Mirror, upstream: Upstream) -> None:
    """When the disk could not take what was written nothing more is read of it."""
    quick, slow = mirror.read(Source(upstream)), mirror.read(Source(upstream))
    slow.pause()
    hashing = mirror.hold_threads()
    upstream.body.finish()
    syncing = mirror.hold_threads()
    hashing.callback(None)
    mirror.turn(times=10)
    syncing.errback(OSError("input/output error"))
    assert (quick.received, type(slow.outcome)) == (DATA, Unavailable)
    assert not mirror.blob.exists()
    assert not mirror.part.exists()


def test_cannot_be_linked(mirror: Mirror, upstream: Upstream, log: list[str]) -> None:
    """That a link cannot be written is logged."""
    mirror.contents.full = True
    client = mirror.read(Source(upstream))
    finish(upstream, mirror)
    assert client.outcome is True
    assert mirror.blob.exists()
    assert "docker.io/library/busybox" in log[0]


def leave_cold_part(mirror: Mirror) -> None:
    """Half of the blob, on the disk and not in memory."""
    mirror.part.parent.mkdir(parents=True)
    mirror.part.with_name(mirror.part.name + ".size").write_text(f"{SIZE}\n")
    with open(mirror.part, "wb") as file:
        file.write(DATA[:HALF])
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def test_cold(mirror: Mirror, upstream: Upstream) -> None:
    """What is not in memory is read in a thread; a reader may pause or leave meanwhile."""
    leave_cold_part(mirror)
    opening = mirror.hold_threads()
    joinings = [mirror.join(Source(upstream)) for _ in range(3)]
    hashing = mirror.hold_threads()
    opening.callback(None)
    reads, clients = [], []
    for joining in joinings:
        assert joining.growth is not None
        reads.append(mirror.hold_threads())
        clients.append(Client().read(joining.growth, Descriptor(size=SIZE)))
    clients[0].leave()
    clients[1].pause()
    for read in reads:
        read.callback(None)
    assert [client.received for client in clients] == [b"", b"", DATA[: 256 * 1024]]
    clients[1].resume()
    mirror.turn(times=10)
    assert clients[1].received == clients[2].received == DATA[:HALF]
    hashing.callback(None)
    upstream.body.finish()
    mirror.turn(times=10)
    assert clients[1].received == clients[2].received == DATA
    assert upstream.opens == [HALF]


def test_disk_gives_nothing(mirror: Mirror, upstream: Upstream) -> None:
    """A reader whose bytes the disk does not give is cut off."""
    leave_cold_part(mirror)
    opening = mirror.hold_threads()
    joining = mirror.join(Source(upstream))
    hashing = mirror.hold_threads()
    opening.callback(None)
    assert joining.growth is not None
    reading = mirror.hold_threads()
    client = Client().read(joining.growth, Descriptor(size=SIZE))
    reading.errback(OSError("input/output error"))
    assert isinstance(client.outcome, Unavailable)
    hashing.callback(None)


def test_disk_gives_nothing_to_hash(mirror: Mirror, upstream: Upstream) -> None:
    """A part that cannot be read is removed; its readers are cut off, since nobody knows what they have."""
    leave_cold_part(mirror)
    opening = mirror.hold_threads()
    joining = mirror.join(Source(upstream))
    hashing = mirror.hold_threads()
    opening.callback(None)
    assert joining.growth is not None
    client = Client().read(joining.growth, Descriptor(size=SIZE))
    hashing.errback(OSError("input/output error"))
    assert isinstance(client.outcome, Unavailable)
    assert not mirror.part.exists()


def test_left_while_a_thread_reads(mirror: Mirror, upstream: Upstream) -> None:
    """The file stays open until the thread has read."""
    leave_cold_part(mirror)
    opening = mirror.hold_threads()
    joining = mirror.join(Source(upstream))
    hashing = mirror.hold_threads()
    opening.callback(None)
    assert joining.growth is not None
    reading = mirror.hold_threads()
    client = Client().read(joining.growth, Descriptor(size=SIZE))
    client.leave()
    assert mirror.growing
    hashing.callback(None)
    assert not mirror.growing
    assert len(open_files(mirror.root)) == 1
    reading.callback(None)
    assert open_files(mirror.root) == []


def test_comes_back_while_a_thread_hashes(mirror: Mirror, upstream: Upstream) -> None:
    """A fetch that was about to stop goes on for whoever comes then."""
    leave_cold_part(mirror)
    opening = mirror.hold_threads()
    joining = mirror.join(Source(upstream))
    hashing = mirror.hold_threads()
    opening.callback(None)
    assert joining.growth is not None
    joining.growth.leave()
    client = mirror.read(Source(upstream))
    hashing.callback(None)
    upstream.body.finish()
    mirror.turn(times=10)
    assert (client.received, client.outcome) == (DATA, True)
    assert (upstream.opens, upstream.sent) == ([HALF], HALF)


@pytest.mark.parametrize("client", [Client(picky=True), FileClient(1000)])
def test_cut_short(mirror: Mirror, upstream: Upstream, client: Client) -> None:
    """A file that was cut short by somebody is no end of the blob."""
    mirror.read(Source(upstream), client=client)
    upstream.body.send(HALF)
    os.truncate(mirror.part, 10)
    client.resume()
    assert isinstance(client.outcome, Unavailable)
    upstream.body.break_off()


def test_slow_hash(tmp_path: Path) -> None:
    """An upstream that is far ahead of the hash waits, and goes on when that has caught up."""
    data = bytes(BEHIND + 1024 * 1024)
    upstream = Upstream(data)
    with all_closed(tmp_path):
        mirror = Mirror(tmp_path, data)
        client = mirror.read(Source(upstream), client=FileClient(len(data)))
        hashing = mirror.hold_threads()
        upstream.body.send(BEHIND - PIECE)
        assert not upstream.body.paused
        upstream.body.send(2 * PIECE)
        assert upstream.body.paused
        hashing.callback(None)
        assert not upstream.body.paused
        upstream.body.finish()
        mirror.turn(times=100)
        assert (client.outcome, client.received == data) == (True, True)


def test_hash_fails_meanwhile(tmp_path: Path) -> None:
    """A disk that gives nothing to hash ends the fetch at once: nobody would resume the upstream."""
    data = bytes(STEP + PIECE)
    upstream = Upstream(data)
    with all_closed(tmp_path):
        mirror = Mirror(tmp_path, data)
        client = mirror.read(Source(upstream))
        hashing = mirror.hold_threads()
        upstream.body.send()
        hashing.errback(OSError("input/output error"))
        assert upstream.body.cancelled
        assert isinstance(client.outcome, Unavailable)
        assert not mirror.part.exists()
