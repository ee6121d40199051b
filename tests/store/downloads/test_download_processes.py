"""Downloads that several processes on one directory read and fetch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred

from dockmirror.body.verified import TAIL_HOLDBACK, CorruptContent
from dockmirror.interfaces import ContentKind
from dockmirror.oci.errors import Denied, Unavailable
from dockmirror.oci.ranges import ContentRange
from dockmirror.store.downloads.downloads import POLL

from .upstream import (
    ALPINE,
    BUSYBOX,
    DATA,
    DESCRIPTOR,
    HALF,
    SIZE,
    WRONG,
    Client,
    Mirror,
    Source,
    Upstream,
    all_closed,
    blob_path,
    leave_part,
    part,
)

ROOT = Path(__file__).parents[3]
LAST = part(SIZE - 9, SIZE - 1)
CHILD = """
import sys, time
from pathlib import Path
from tests.store.downloads.upstream import Mirror, Source, Upstream
root = Path(sys.argv[1])
upstream = Upstream((root / "blob").read_bytes())
mirror = Mirror(root, upstream.data)
client = mirror.read(Source(upstream))
upstream.body.send(int(sys.argv[2]))
print("half", flush=True)
sys.stdin.read()
time.sleep(60)
"""


def test_two_processes_fetch_a_blob_once(mirrors: tuple[Mirror, Mirror], upstream: Upstream) -> None:
    """A reader in another process reads behind the owner, and finishes when the digest is right."""
    here, there = mirrors
    first = here.read(Source(upstream))
    assert there.is_downloading
    upstream.body.send(1000)
    reader = there.enter(Source(upstream), ALPINE)
    assert (reader.joined, reader.size) == (True, SIZE)
    second = Client().read(reader, DESCRIPTOR)
    assert second.received == DATA[:1000]
    upstream.body.send(1000)
    assert second.received == DATA[:1000]
    there.turn(POLL)
    assert second.received == DATA[:2000]
    upstream.body.send()
    there.turn(POLL, 10)
    assert second.received == DATA[: SIZE - TAIL_HOLDBACK]
    upstream.body.end()
    there.turn(POLL, 10)
    here.turn(times=10)
    assert first.received == second.received == DATA
    assert (second.outcome, upstream.opens, upstream.checks) == (True, [0], 1)
    assert here.contents.links == [(BUSYBOX, here.digest, ContentKind.BLOB)]
    assert there.contents.links == [(ALPINE, here.digest, ContentKind.BLOB)]
    assert not there.is_downloading
    assert there.clock.getDelayedCalls() == []


def test_a_reader_elsewhere_waits_for_the_digest_and_not_for_the_disk(
    mirrors: tuple[Mirror, Mirror], upstream: Upstream
) -> None:
    """A reader elsewhere has all when the digest is right; its repository is linked when the disk is done."""
    here, there = mirrors
    syncing: Deferred[None] = here.hold_threads()
    first = here.join(Source(upstream))
    syncing.callback(None)
    assert first.reader is not None
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
    first.reader.leave()


def test_a_reader_elsewhere_is_admitted_when_the_owner_knows_the_size(
    mirrors: tuple[Mirror, Mirror], upstream: Upstream
) -> None:
    """A reader elsewhere is admitted when the upstream has answered the owner."""
    here, there = mirrors
    upstream.opening = Deferred()
    first, second = here.join(Source(upstream)), there.join(Source(upstream))
    there.turn(POLL)
    assert second.reader is None
    upstream.opening.callback(None)
    there.turn(POLL)
    assert second.reader is not None
    assert second.reader.size == SIZE
    second.reader.leave()
    assert first.reader is not None
    first.reader.leave()
    assert there.clock.getDelayedCalls() == []


def test_an_unknown_size_is_shared(mirrors: tuple[Mirror, Mirror], upstream: Upstream) -> None:
    """A reader elsewhere is streamed to although the upstream gives no size."""
    here, there = mirrors
    upstream.size = None
    first = here.read(Source(upstream))
    reader = there.enter(Source(upstream))
    assert reader.size is None
    second = Client().read(reader, DESCRIPTOR)
    upstream.body.finish()
    there.turn(POLL, 10)
    here.turn(times=10)
    assert first.received == second.received == DATA
    assert second.outcome is True


def test_a_client_elsewhere_that_the_upstream_refuses_cannot_join(
    mirrors: tuple[Mirror, Mirror], upstream: Upstream
) -> None:
    """A client that the upstream refuses is given nothing of what another process fetches."""
    here, there = mirrors
    first = here.read(Source(upstream))
    upstream.body.send(HALF)
    assert isinstance(there.join(Source(upstream, Denied())).error, Denied)
    assert there.clock.getDelayedCalls() == []
    upstream.body.finish()
    here.turn(times=10)
    assert first.outcome is True


def test_the_pace_of_another_process_is_estimated(mirrors: tuple[Mirror, Mirror], upstream: Upstream) -> None:
    """The pace of another process is estimated from how its file has grown."""
    here, there = mirrors
    first = here.enter(Source(upstream))
    reader = there.enter(Source(upstream))
    upstream.body.send(100000)
    there.turn(POLL)
    assert reader.seconds_until(ContentRange(0, 199999, SIZE)) == pytest.approx(POLL)
    reader.leave()
    first.leave()


def test_another_process_continues_when_the_owner_dies(
    mirrors: tuple[Mirror, Mirror], upstream: Upstream
) -> None:
    """When the owner dies, another process continues from the file's length with its own reader's source."""
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


def test_another_process_commits_what_a_dead_owner_has_verified(
    mirrors: tuple[Mirror, Mirror], upstream: Upstream
) -> None:
    """A blob that a dead owner has verified is committed by the next process without another request."""
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


def test_the_note_of_a_dead_owner_is_not_relied_on(
    mirrors: tuple[Mirror, Mirror], upstream: Upstream
) -> None:
    """Readers of a file that a dead owner has called right get its tail when the next owner has hashed it."""
    here, there = mirrors
    leave_part(here, WRONG, f"{SIZE}\nverified {SIZE}\n")
    opening = here.hold_threads()
    joining = here.join(Source(upstream))
    hashing = here.hold_threads()
    opening.callback(None)
    client = there.read(Source(upstream))
    there.turn(POLL, 10)
    assert (client.received, client.outcome) == (WRONG[: SIZE - TAIL_HOLDBACK], None)
    hashing.callback(None)
    there.turn(POLL, 2)
    assert isinstance(client.outcome, Unavailable)
    assert joining.reader is not None
    joining.reader.leave()


def test_another_process_continues_when_the_owner_has_no_readers(
    mirrors: tuple[Mirror, Mirror], upstream: Upstream
) -> None:
    """When the owner has no readers left, another process requests the rest."""
    here, there = mirrors
    first, second = here.read(Source(upstream)), there.read(Source(upstream))
    upstream.body.send(1000)
    first.leave()
    there.turn(POLL)
    upstream.body.finish()
    there.turn(times=10)
    assert (second.received, second.outcome, upstream.opens) == (DATA, True, [0, 1000])


def test_a_process_without_readers_does_not_poll(mirrors: tuple[Mirror, Mirror], upstream: Upstream) -> None:
    """A process without readers does not look at the file: no timer is left."""
    here, there = mirrors
    first, second = here.read(Source(upstream)), there.read(Source(upstream))
    second.leave()
    assert there.clock.getDelayedCalls() == []
    assert there.is_downloading
    first.leave()
    assert not there.is_downloading


def test_readers_elsewhere_of_a_wrong_blob_are_cut_off(
    mirrors: tuple[Mirror, Mirror], upstream: Upstream
) -> None:
    """Readers elsewhere of a wrong blob are cut off; those who have nothing of it fetch it for themselves."""
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
    assert isinstance(here.join(Source(upstream)).error, CorruptContent)


def test_another_process_asks_for_its_own_reader(mirrors: tuple[Mirror, Mirror], upstream: Upstream) -> None:
    """When the upstream refuses the client that asked first, another process asks for its own reader."""
    here, there = mirrors
    upstream.opening = Deferred()
    refused = here.join(Source(upstream))
    other = Upstream(DATA)
    joining = there.join(Source(other))
    upstream.opening.errback(Denied())
    assert isinstance(refused.error, Denied)
    there.turn(POLL, 2)
    assert joining.reader is not None
    assert (other.opens, other.checks) == ([0], 0)
    joining.reader.leave()


def test_a_blob_that_was_replaced_by_an_equal_one_is_completed(
    mirrors: tuple[Mirror, Mirror], upstream: Upstream, tmp_path: Path
) -> None:
    """A blob that an equal one has replaced, before a reader elsewhere looked, is completed."""
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


def test_a_partial_file_that_was_removed_cuts_off_its_readers(
    mirrors: tuple[Mirror, Mirror], upstream: Upstream
) -> None:
    """A partial file that was removed cuts off its readers elsewhere; others are given a new download."""
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


def test_a_killed_process_is_continued(tmp_path: Path, upstream: Upstream) -> None:
    """Two real processes: one is killed in the middle, the other requests the rest."""
    (tmp_path / "blob").write_bytes(DATA)
    command = [sys.executable, "-c", CHILD, str(tmp_path), str(HALF)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as child:  # noqa: S603
        assert child.stdout is not None
        assert child.stdout.readline() == b"half\n"
        with all_closed(tmp_path):
            mirror = Mirror(tmp_path, DATA)
            assert mirror.is_downloading
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
