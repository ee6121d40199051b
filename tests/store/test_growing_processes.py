"""Blobs on their way in, read and filled by several processes on one directory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred

from dockmirror.content.verified import HOLD, Corrupt
from dockmirror.interfaces import Kind
from dockmirror.oci.descriptor import Descriptor
from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import Denied, Unavailable
from dockmirror.oci.ranges import ContentRange
from dockmirror.oci.reference import Repository
from dockmirror.store.growing.behind import POLL

from .upstream import BUSYBOX, Client, Mirror, Source, Upstream, all_closed, blob_path

DATA = os.urandom(1000 * 1000)
WRONG = os.urandom(1000 * 1000)
SIZE = len(DATA)
HALF = SIZE // 2
DESCRIPTOR = Descriptor("application/octet-stream", Digest.of(DATA), SIZE)
REPOSITORY = Path(__file__).parents[2]
ALPINE = Repository("docker.io/library/alpine")
LAST = ContentRange(SIZE - 9, SIZE - 1, SIZE)


@pytest.fixture
def upstream() -> Upstream:
    """Has the blob."""
    return Upstream(DATA)


@pytest.fixture
def mirrors(tmp_path: Path) -> Iterator[tuple[Mirror, Mirror]]:
    """Two processes, as far as files can tell."""
    with all_closed(tmp_path):
        opened: dict[int, Mirror] = {}
        yield Mirror(tmp_path, DATA, opened=opened), Mirror(tmp_path, DATA, opened=opened)


def test_one_fetch(mirrors: tuple[Mirror, Mirror], upstream: Upstream) -> None:
    """A reader in another process reads behind whenever it looks, and finishes when the digest is right."""
    here, there = mirrors
    first = here.read(Source(upstream))
    assert there.growing
    upstream.body.send(1000)
    growth = there.enter(Source(upstream), ALPINE)
    assert (growth.joined, growth.size) == (True, SIZE)
    second = Client().read(growth, DESCRIPTOR)
    assert second.received == DATA[:1000]
    upstream.body.send(1000)
    assert second.received == DATA[:1000]
    there.turn(POLL)
    assert second.received == DATA[:2000]
    upstream.body.send()
    there.turn(POLL, 10)
    assert second.received == DATA[: SIZE - HOLD]
    upstream.body.end()
    there.turn(POLL, 10)
    here.turn(times=10)
    assert first.received == second.received == DATA
    assert (second.outcome, upstream.opens, upstream.checks) == (True, [0], 1)
    assert here.contents.links == [(BUSYBOX, here.digest, Kind.BLOB)]
    assert there.contents.links == [(ALPINE, here.digest, Kind.BLOB)]
    assert not there.growing
    assert there.clock.getDelayedCalls() == []


def test_finishes_before_the_disk_does(mirrors: tuple[Mirror, Mirror], upstream: Upstream) -> None:
    """A reader elsewhere waits for the digest only, not for the disk; its repository is linked after that."""
    here, there = mirrors
    syncing: Deferred[None] = here.hold_threads()
    first = here.join(Source(upstream))
    syncing.callback(None)
    assert first.growth is not None
    second = there.read(Source(upstream))
    hashing = here.hold_threads()
    upstream.body.finish()
    syncing = here.hold_threads()
    hashing.callback(None)
    there.turn(POLL, 10)
    assert (second.received, second.outcome, here.blob.exists()) == (DATA, True, False)
    syncing.callback(None)
    assert here.blob.exists()
    there.turn(POLL)
    assert len(there.contents.links) == 1
    first.growth.leave()


def test_waits_for_the_size(mirrors: tuple[Mirror, Mirror], upstream: Upstream) -> None:
    """Until the upstream has answered whoever asked it first."""
    here, there = mirrors
    upstream.opening = Deferred()
    first, second = here.join(Source(upstream)), there.join(Source(upstream))
    there.turn(POLL)
    assert second.growth is None
    upstream.opening.callback(None)
    there.turn(POLL)
    assert second.growth is not None
    assert second.growth.size == SIZE
    second.growth.leave()
    assert first.growth is not None
    first.growth.leave()
    assert there.clock.getDelayedCalls() == []


def test_unknown_size(mirrors: tuple[Mirror, Mirror], upstream: Upstream) -> None:
    """That the upstream does not tell it is told."""
    here, there = mirrors
    upstream.size = None
    first = here.read(Source(upstream))
    growth = there.enter(Source(upstream))
    assert growth.size is None
    second = Client().read(growth, DESCRIPTOR)
    upstream.body.finish()
    there.turn(POLL, 10)
    here.turn(times=10)
    assert first.received == second.received == DATA
    assert second.outcome is True


def test_refused(mirrors: tuple[Mirror, Mirror], upstream: Upstream) -> None:
    """What another process fetches is given to nobody whom the upstream refuses."""
    here, there = mirrors
    first = here.read(Source(upstream))
    upstream.body.send(HALF)
    assert isinstance(there.join(Source(upstream, Denied())).error, Denied)
    assert there.clock.getDelayedCalls() == []
    upstream.body.finish()
    here.turn(times=10)
    assert first.outcome is True


def test_seconds_until(mirrors: tuple[Mirror, Mirror], upstream: Upstream) -> None:
    """The pace is judged by what was seen."""
    here, there = mirrors
    first = here.enter(Source(upstream))
    growth = there.enter(Source(upstream))
    upstream.body.send(100000)
    there.turn(POLL)
    assert growth.seconds_until(ContentRange(0, 199999, SIZE)) == pytest.approx(POLL)
    growth.leave()
    first.leave()


def test_dies(mirrors: tuple[Mirror, Mirror], upstream: Upstream) -> None:
    """When the one that fills is gone the other goes on from the part's length, with its own source."""
    here, there = mirrors
    lost = here.enter(Source(upstream))
    source = Source(upstream)
    client = there.read(source)
    upstream.body.send(HALF)
    here.kill()
    there.turn(POLL, 10)
    assert (client.received, source.opens, upstream.opens) == (DATA[:HALF], 1, [0, HALF])
    upstream.body.finish()
    there.turn(times=10)
    assert (client.received, client.outcome) == (DATA, True)
    assert here.blob.read_bytes() == DATA
    lost.leave()
    upstream.bodies[0].break_off()


def test_dies_after_it_was_right(mirrors: tuple[Mirror, Mirror], upstream: Upstream) -> None:
    """A blob that was verified and not yet named is named by the next one that looks."""
    here, there = mirrors
    first = here.enter(Source(upstream))
    client = there.read(Source(upstream))
    hashing = here.hold_threads()
    upstream.body.finish()
    syncing = here.hold_threads()
    hashing.callback(None)
    here.kill()
    there.turn(POLL, 10)
    assert (client.received, client.outcome, upstream.opens) == (DATA, True, [0])
    assert there.blob.read_bytes() == DATA
    assert len(there.contents.links) == 1
    syncing.errback(OSError("killed"))
    first.leave()


def test_stops(mirrors: tuple[Mirror, Mirror], upstream: Upstream) -> None:
    """When nobody reads in the one that fills the other goes on."""
    here, there = mirrors
    first, second = here.read(Source(upstream)), there.read(Source(upstream))
    upstream.body.send(1000)
    first.leave()
    there.turn(POLL)
    upstream.body.finish()
    there.turn(times=10)
    assert (second.received, second.outcome, upstream.opens) == (DATA, True, [0, 1000])


def test_nobody_looks(mirrors: tuple[Mirror, Mirror], upstream: Upstream) -> None:
    """Without a reader here nothing is looked at."""
    here, there = mirrors
    first, second = here.read(Source(upstream)), there.read(Source(upstream))
    second.leave()
    assert there.clock.getDelayedCalls() == []
    assert there.growing
    first.leave()
    assert not there.growing


def test_wrong(mirrors: tuple[Mirror, Mirror], upstream: Upstream) -> None:
    """Readers elsewhere are cut off, too; those who were given nothing fetch for themselves."""
    here, there = mirrors
    here.enter(Source(upstream))
    second, late = there.read(Source(upstream)), there.read(Source(upstream), LAST)
    upstream.body.send_these(WRONG[:HALF])
    there.turn(POLL)
    upstream.body.send_these(WRONG[HALF:]).end()
    there.turn(POLL)
    assert isinstance(second.outcome, Unavailable)
    assert second.received == WRONG[: len(second.received)]
    assert upstream.opens == [0, 0]
    upstream.body.finish()
    there.turn(times=10)
    assert (late.received, late.outcome) == (DATA[-9:], True)
    assert isinstance(here.join(Source(upstream)).error, Corrupt)


def test_refused_there(mirrors: tuple[Mirror, Mirror], upstream: Upstream) -> None:
    """When the upstream refuses whoever asked first, the other process asks for its own reader."""
    here, there = mirrors
    upstream.opening = Deferred()
    refused = here.join(Source(upstream))
    other = Upstream(DATA)
    joining = there.join(Source(other))
    upstream.opening.errback(Denied())
    assert isinstance(refused.error, Denied)
    there.turn(POLL, 2)
    assert joining.growth is not None
    assert (other.opens, other.checks) == ([0], 0)
    joining.growth.leave()


def test_another_took_its_place(mirrors: tuple[Mirror, Mirror], upstream: Upstream, tmp_path: Path) -> None:
    """A blob that was replaced by the same from another registry before anybody looked is completed."""
    here, there = mirrors
    first, second = here.read(Source(upstream)), there.read(Source(upstream))
    upstream.body.finish()
    os.link(here.blob, tmp_path / "kept")
    here.blob.unlink()
    here.blob.write_bytes(DATA)
    there.turn(POLL, 10)
    here.turn(times=10)
    assert (second.received, second.outcome) == (DATA, True)
    assert first.outcome is True


def test_removed(mirrors: tuple[Mirror, Mirror], upstream: Upstream) -> None:
    """A growing file that was taken away cuts off who has read of it, and nobody else."""
    here, there = mirrors
    first = here.read(Source(upstream))
    second, late = there.read(Source(upstream)), there.read(Source(upstream), LAST)
    upstream.body.send(HALF)
    there.turn(POLL)
    here.part.unlink()
    there.turn(POLL)
    assert isinstance(second.outcome, Unavailable)
    upstream.body.finish()
    there.turn(times=10)
    assert late.outcome is True
    assert here.blob.read_bytes() == DATA
    upstream.bodies[0].finish()
    here.turn(times=10)
    assert first.received == DATA


def test_really_killed(tmp_path: Path, upstream: Upstream) -> None:
    """Two real processes: one is killed in the middle, the other goes on with a range."""
    (tmp_path / "blob").write_bytes(DATA)
    command = [sys.executable, "-c", CHILD, str(tmp_path), str(HALF)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPOSITORY) as child:  # noqa: S603
        assert child.stdout is not None
        assert child.stdout.readline() == b"half\n"
        with all_closed(tmp_path):
            mirror = Mirror(tmp_path, DATA)
            assert mirror.growing
            client = mirror.read(Source(upstream))
            mirror.turn(POLL, 10)
            assert (client.received, upstream.opens) == (DATA[:HALF], [])
            child.send_signal(signal.SIGKILL)
            child.wait()
            mirror.turn(POLL)
            assert upstream.opens == [HALF]
            upstream.body.finish()
            mirror.turn(times=10)
            assert (client.received, client.outcome) == (DATA, True)
            assert blob_path(tmp_path, mirror.digest).read_bytes() == DATA


CHILD = """
import sys, time
from pathlib import Path
from tests.store.upstream import Mirror, Source, Upstream
root = Path(sys.argv[1])
upstream = Upstream((root / "blob").read_bytes())
mirror = Mirror(root, upstream.data)
client = mirror.read(Source(upstream))
upstream.body.send(int(sys.argv[2]))
print("half", flush=True)
sys.stdin.read()
time.sleep(60)
"""
