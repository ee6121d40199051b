"""Downloads that several processes on one directory read and fetch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred

from dockmirror.body.bodies import TAIL_HOLDBACK, CorruptContent
from dockmirror.oci.errors import Denied, Unavailable
from dockmirror.oci.header_fields import ContentRange, Span
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
    finish,
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
upstream.size = int(sys.argv[3]) if sys.argv[3] else None
mirror = Mirror(root, upstream.data)
client = mirror.read(Source(upstream))
upstream.body.advance(int(sys.argv[2]))
print("half", flush=True)
sys.stdin.read()
time.sleep(60)
"""


def test_two_processes_fetch_a_blob_once(owner: Mirror, other: Mirror, upstream: Upstream) -> None:
    """A reader in another process reads behind the owner, and finishes when the digest is right."""
    first = owner.read(Source(upstream))
    assert other.is_downloading
    upstream.body.advance(1000)
    reader = other.enter(Source(upstream), ALPINE)
    assert (reader.joined, reader.size) == (True, SIZE)
    second = Client().read(reader, DESCRIPTOR)
    assert second.data == DATA[:1000]
    upstream.body.advance(1000)
    assert second.data == DATA[:1000]
    other.turn(POLL)
    assert second.data == DATA[:2000]
    upstream.body.advance()
    other.turn(POLL, 10)
    assert second.data == DATA[: SIZE - TAIL_HOLDBACK]
    upstream.body.end()
    other.turn(POLL, 10)
    owner.turn(times=10)
    assert first.data == second.data == DATA
    assert (second.outcome, upstream.opens, upstream.checks) == (True, [0], 1)
    assert owner.contents.linked == [BUSYBOX]
    assert other.contents.linked == [ALPINE]
    assert not other.is_downloading
    assert other.clock.getDelayedCalls() == []


def test_a_blob_that_is_cut_short_is_not_delivered_as_complete(
    owner: Mirror, other: Mirror, upstream: Upstream
) -> None:
    """Readers elsewhere fetch the blob anew if somebody truncates it before they see that it is finished."""
    owner.read(Source(upstream))
    before, behind = other.read(Source(upstream)), other.enter(Source(upstream), ALPINE)
    upstream.body.advance(1000)
    other.turn(POLL)
    upstream.body.finish()
    owner.turn(times=10)
    os.truncate(owner.blob, HALF)
    other.turn(POLL, 2)
    assert isinstance(before.outcome, Unavailable)
    client = Client().read(behind, DESCRIPTOR)
    finish(upstream, other)
    assert (client.data, client.outcome) == (DATA, True)
    assert other.blob.read_bytes() == DATA


def test_a_blob_without_a_seal_is_hashed(owner: Mirror, other: Mirror, upstream: Upstream) -> None:
    """Readers elsewhere are given a blob whose file lost its seal if its digest is right."""
    owner.read(Source(upstream))
    client = other.read(Source(upstream))
    upstream.body.finish()
    owner.turn(times=10)
    os.utime(owner.blob)
    other.turn(POLL, 10)
    assert (client.data, client.outcome) == (DATA, True)
    assert upstream.opens == [0]


def test_readers_elsewhere_do_not_wait_for_the_disk(owner: Mirror, other: Mirror, upstream: Upstream) -> None:
    """A reader elsewhere has all when the digest is right; its repository is linked when the disk is done."""
    syncing: Deferred[None] = owner.hold_threads()
    first = owner.join(Source(upstream))
    syncing.callback(None)
    second = other.read(Source(upstream))
    hashing = owner.hold_threads()
    upstream.body.finish()
    syncing = owner.hold_threads()
    hashing.callback(None)
    other.turn(POLL, 10)
    assert (second.data, second.outcome, owner.blob.exists()) == (DATA, True, False)
    syncing.callback(None)
    assert owner.blob.exists()
    other.turn(POLL)
    assert len(other.contents.linked) == 1
    first.reader.leave()


def test_readers_elsewhere_wait_for_the_size(owner: Mirror, other: Mirror, upstream: Upstream) -> None:
    """A reader elsewhere is admitted when the upstream has answered the owner."""
    upstream.opening = Deferred()
    first, second = owner.join(Source(upstream)), other.join(Source(upstream))
    other.turn(POLL)
    assert not second.is_admitted
    upstream.opening.callback(None)
    other.turn(POLL)
    assert second.reader.size == SIZE
    second.reader.leave()
    first.reader.leave()
    assert other.clock.getDelayedCalls() == []


def test_a_refused_client_elsewhere_cannot_join(owner: Mirror, other: Mirror, upstream: Upstream) -> None:
    """A client that the upstream refuses is given nothing of what another process fetches."""
    client = owner.read(Source(upstream))
    upstream.body.advance(HALF)
    assert isinstance(other.join(Source(upstream, Denied())).error, Denied)
    assert other.clock.getDelayedCalls() == []
    client.leave()
    upstream.body.break_off()


def test_the_pace_of_another_process_is_estimated(owner: Mirror, other: Mirror, upstream: Upstream) -> None:
    """The pace of another process is estimated from how its file has grown."""
    first = owner.enter(Source(upstream))
    readers = [other.enter(Source(upstream)) for _ in range(2)]
    assert readers[0].choose_part(Span(199_999)) is None
    upstream.body.advance(100_000)
    other.turn(POLL)
    assert readers[1].choose_part(Span(199_999)) == ContentRange(199_999, SIZE - 1, SIZE)
    readers[1].leave()
    first.leave()


def test_a_verified_file_of_a_dead_owner_is_committed(
    owner: Mirror, other: Mirror, upstream: Upstream
) -> None:
    """A blob that a dead owner has verified is committed by the next process without another request."""
    first = owner.enter(Source(upstream))
    client = other.read(Source(upstream))
    hashing = owner.hold_threads()
    upstream.body.finish()
    syncing = owner.hold_threads()
    hashing.callback(None)
    owner.kill()
    other.turn(POLL, 10)
    assert (client.data, client.outcome, upstream.opens) == (DATA, True, [0])
    assert other.blob.read_bytes() == DATA
    assert len(other.contents.linked) == 1
    syncing.errback(OSError("killed"))
    first.leave()


def test_the_note_of_a_dead_owner_is_not_relied_on(owner: Mirror, other: Mirror, upstream: Upstream) -> None:
    """Readers of a file that a dead owner has called right get its tail when the next owner has hashed it."""
    leave_part(owner, WRONG, f"{SIZE}\nverified {SIZE}\n")
    opening = owner.hold_threads()
    joining = owner.join(Source(upstream))
    hashing = owner.hold_threads()
    opening.callback(None)
    client = other.read(Source(upstream))
    other.turn(POLL, 10)
    assert (client.data, client.outcome) == (WRONG[: SIZE - TAIL_HOLDBACK], None)
    hashing.callback(None)
    other.turn(POLL, 2)
    assert isinstance(client.outcome, Unavailable)
    joining.reader.leave()


def test_another_process_continues_without_the_owner(
    owner: Mirror, other: Mirror, upstream: Upstream
) -> None:
    """When the owner has no readers left, another process requests the rest."""
    first, second = owner.read(Source(upstream)), other.read(Source(upstream))
    upstream.body.advance(1000)
    first.leave()
    other.turn(POLL)
    finish(upstream, other)
    assert (second.data, second.outcome, upstream.opens) == (DATA, True, [0, 1000])


def test_a_process_without_readers_does_not_poll(owner: Mirror, other: Mirror, upstream: Upstream) -> None:
    """A process without readers does not look at the file: no timer is left."""
    first, second = owner.read(Source(upstream)), other.read(Source(upstream))
    second.leave()
    assert other.clock.getDelayedCalls() == []
    assert other.is_downloading
    first.leave()
    assert not other.is_downloading


def test_readers_elsewhere_of_a_wrong_blob_are_cut_off(
    owner: Mirror, other: Mirror, upstream: Upstream
) -> None:
    """Readers elsewhere of a wrong blob are cut off; those who have nothing of it fetch it for themselves."""
    owner.enter(Source(upstream))
    second, late = other.read(Source(upstream)), other.read(Source(upstream), LAST)
    upstream.body.send_these(WRONG[:HALF])
    other.turn(POLL)
    upstream.body.send_these(WRONG[HALF:]).end()
    other.turn(POLL)
    assert isinstance(second.outcome, Unavailable)
    assert second.data == WRONG[: len(second.data)]
    assert upstream.opens == [0, 0]
    finish(upstream, other)
    assert (late.data, late.outcome) == (DATA[-9:], True)
    assert isinstance(owner.join(Source(upstream)).error, CorruptContent)


def test_another_process_asks_for_its_own_reader(owner: Mirror, other: Mirror, upstream: Upstream) -> None:
    """When the upstream refuses the client that asked first, another process asks for its own reader."""
    upstream.opening = Deferred()
    refused = owner.join(Source(upstream))
    own = Upstream(DATA)
    joining = other.join(Source(own))
    upstream.opening.errback(Denied())
    assert isinstance(refused.error, Denied)
    other.turn(POLL, 2)
    assert (own.opens, own.checks) == ([0], 0)
    joining.reader.leave()


def test_a_blob_that_an_equal_one_replaced(
    owner: Mirror, other: Mirror, upstream: Upstream, tmp_path: Path
) -> None:
    """A blob that an equal one has replaced, before a reader elsewhere looked, is completed."""
    first, second = owner.read(Source(upstream)), other.read(Source(upstream))
    upstream.body.finish()
    os.link(owner.blob, tmp_path / "kept")
    owner.blob.unlink()
    owner.blob.write_bytes(DATA)
    other.turn(POLL, 10)
    owner.turn(times=10)
    assert (second.data, second.outcome) == (DATA, True)
    assert first.outcome is True


def test_a_partial_file_that_was_removed_cuts_off_its_readers(
    owner: Mirror, other: Mirror, upstream: Upstream
) -> None:
    """A partial file that was removed cuts off its readers elsewhere; others are given a new download."""
    first = owner.read(Source(upstream))
    second, late = other.read(Source(upstream)), other.read(Source(upstream), LAST)
    upstream.body.advance(HALF)
    other.turn(POLL)
    owner.part.unlink()
    other.turn(POLL)
    assert isinstance(second.outcome, Unavailable)
    finish(upstream, other)
    assert late.outcome is True
    assert owner.blob.read_bytes() == DATA
    upstream.bodies[0].finish()
    owner.turn(times=10)
    assert first.data == DATA


@pytest.mark.parametrize("size", [SIZE, None])
def test_a_killed_process_is_continued(tmp_path: Path, upstream: Upstream, size: int | None) -> None:
    """One of two real processes is killed in the middle; the other requests the rest for its own reader."""
    (tmp_path / "blob").write_bytes(DATA)
    upstream.size = size
    command = [sys.executable, "-c", CHILD, str(tmp_path), str(HALF), str(size or "")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as child:  # noqa: S603
        assert child.stdout is not None
        assert child.stdout.readline() == b"half\n"
        with all_closed(tmp_path):
            mirror = Mirror(tmp_path, DATA)
            assert mirror.is_downloading
            reader = mirror.enter(source := Source(upstream))
            client = Client().read(reader, DESCRIPTOR)
            mirror.turn(POLL, 10)
            readable = HALF if size else HALF - TAIL_HOLDBACK
            assert (reader.size, client.data, source.opens) == (size, DATA[:readable], 0)
            child.send_signal(signal.SIGKILL)
            child.wait()
            mirror.turn(POLL)
            assert (source.opens, upstream.opens) == (1, [HALF])
            finish(upstream, mirror)
            assert (client.data, client.outcome) == (DATA, True)
            assert mirror.blob.read_bytes() == DATA
