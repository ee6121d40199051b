"""The refresh of pinned images, and warm-ups that were requested through the API."""

from __future__ import annotations

import errno
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import define, evolve, field, frozen
from obstore.store import MemoryStore
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import implementer

from dockmirror.app.background_pulls import (
    PIN_READ_INTERVAL,
    POLL,
    REFRESH_PERIOD,
    REFRESH_POLL,
    REFRESH_RETRY,
    PinRefresh,
    PollTurns,
    WarmUpRunner,
)
from dockmirror.body.bodies import BytesBody
from dockmirror.interfaces import Answer, IRegistry
from dockmirror.oci.digest import Descriptor, Digest
from dockmirror.oci.errors import Denied, ErrorEntry, TooManyRequests
from dockmirror.oci.header_fields import CacheResult, CacheStatus
from dockmirror.oci.request import Reference, RegistryRequest
from dockmirror.pull import HELD_PAUSES
from dockmirror.store import layout, pins, warm_ups
from dockmirror.store.pins import Pin
from dockmirror.store.warm_ups import PULLS, TAG_REFRESHES, WarmUp, WarmUpQueue

from ..answering import now
from ..shelf import AMD, LATEST, PLACE, Shelf
from ..stacks import logged
from ..store.bucket.machines import BucketThreads, bucket
from ..store.threads import CountedThread, HeldThreads, inline

EPOCH = 1_700_000_000.0
PIN = Pin(PLACE, LATEST, (AMD,))


@pytest.fixture
def clock() -> Clock:
    """A clock that stands long after the epoch."""
    clock = Clock()
    clock.advance(EPOCH)
    return clock


def wanted(reference: Reference = LATEST, at: float = EPOCH) -> WarmUp:
    return WarmUp("", PLACE, reference, at, (AMD,), refresh=True)


def tag_refresh(at: float = EPOCH) -> WarmUp:
    return WarmUp("", PLACE, LATEST, at, refresh=True, tag_only=True)


def run(root: Path, clock: Clock, shelf: IRegistry, queue: WarmUpQueue = PULLS) -> None:
    """Run what waits, in a process that starts and stops."""
    service = WarmUpRunner(root, clock, inline, lambda: shelf, queue)
    service.startService()
    clock.pump([POLL, *HELD_PAUSES])
    service.stopService()


def test_a_warm_up_pulls_what_was_wanted(tmp_path: Path, clock: Clock) -> None:
    """Also one that was interrupted; a finished one is not run again."""
    shelf = Shelf()
    added = warm_ups.add_warm_up(tmp_path, wanted())
    warm_ups.write_warm_up(tmp_path, evolve(added, state="running"))
    run(tmp_path, clock, shelf)
    assert shelf.fetched() == sorted(["amd", "base", "a"])
    (done,) = warm_ups.iter_warm_ups(tmp_path)
    assert (done.id, done.state, done.error) == (added.id, "done", "")
    assert (done.manifests, done.fetched, done.held) == (2, 3, 0)
    asked = len(shelf.asked)
    run(tmp_path, clock, shelf)
    assert len(shelf.asked) == asked


def test_an_idle_runner_needs_no_thread(tmp_path: Path, clock: Clock) -> None:
    """Two looks at the same directory are enough; a new warm-up is seen at the next one."""
    shelf, thread = Shelf(), CountedThread()
    warm_ups.write_warm_up(tmp_path, evolve(warm_ups.add_warm_up(tmp_path, wanted()), state="done"))
    WarmUpRunner(tmp_path, clock, thread, lambda: shelf).startService()
    clock.pump([POLL] * 100)
    assert thread.calls == 2
    warm_ups.add_warm_up(tmp_path, wanted())
    clock.advance(POLL)
    assert shelf.fetched() == sorted(["amd", "base", "a"])


def test_each_of_many_warm_ups_is_read_once(tmp_path: Path, clock: Clock) -> None:
    """The directory is not listed again for each that ends."""
    count = 10 * TAG_REFRESHES.jobs
    for _ in range(count):
        warm_ups.add_warm_up(tmp_path, tag_refresh())
    tags, thread = Slow(), CountedThread()
    WarmUpRunner(tmp_path, clock, thread, lambda: tags, TAG_REFRESHES).startService()
    clock.advance(POLL)
    for number in range(count):
        tags.waiting[number].errback(Denied())
    assert {each.state for each in warm_ups.iter_warm_ups(tmp_path)} == {"failed"}
    writes = 2 * count
    assert thread.calls < writes + 10


def test_a_warm_up_in_the_other_queue_is_left_out(tmp_path: Path, clock: Clock) -> None:
    """Its next state would be written elsewhere, so that it would be run for ever."""
    added = warm_ups.add_warm_up(tmp_path, tag_refresh())
    (tmp_path / layout.WARM_UPS).mkdir(parents=True)
    misplaced = tmp_path / layout.warm_up(layout.WARM_UPS, added.id)
    (tmp_path / layout.warm_up(layout.TAG_REFRESHES, added.id)).rename(misplaced)
    renamed = tmp_path / layout.warm_up(layout.WARM_UPS, "0" * 16)
    renamed.write_bytes(misplaced.read_bytes())
    shelf = Shelf()
    run(tmp_path, clock, shelf)
    assert shelf.asked == []
    assert list(warm_ups.iter_warm_ups(tmp_path)) == []
    warm_ups.add_warm_up(tmp_path, wanted(at=time.time() + PULLS.keep))
    assert not misplaced.exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("created", "2026-12-01"), ("created", math.inf), ("changed", 1e17), ("bytes", math.inf),
        ("held", None), ("platforms", [1]), ("state", "skipped"),
    ],
)  # fmt: skip
def test_a_malformed_warm_up_does_not_stop_the_others(
    tmp_path: Path, clock: Clock, field: str, value: object
) -> None:
    malformed, deep, good = (warm_ups.add_warm_up(tmp_path, wanted()) for _ in range(3))
    path = tmp_path / layout.warm_up(layout.WARM_UPS, malformed.id)
    path.write_text(json.dumps({**json.loads(path.read_bytes()), field: value}))
    path.with_name(deep.id).write_text("[" * 100_000)
    run(tmp_path, clock, Shelf())
    assert [(each.id, each.state) for each in warm_ups.iter_warm_ups(tmp_path)] == [(good.id, "done")]


def test_a_failed_warm_up_says_why(tmp_path: Path, clock: Clock) -> None:
    """The others are run nevertheless."""
    references: list[Reference] = [Digest.of(b"gone"), LATEST]
    for at, reference in enumerate(references):
        warm_ups.add_warm_up(tmp_path, wanted(reference, EPOCH + at))
    run(tmp_path, clock, Shelf())
    failed, done = warm_ups.iter_warm_ups(tmp_path)
    assert (failed.state, failed.error, done.state) == ("failed", "manifest unknown to registry", "done")


@implementer(IRegistry)
class Denying:
    """A registry that refuses everything, and repeats a secret."""

    async def fetch(self, request: RegistryRequest) -> Answer:
        error = Denied("the upstream answered 403")
        error.entries = (ErrorEntry(error.code, "Bearer secret is no token"),)
        raise error


@pytest.mark.parametrize("request_at", [wanted, tag_refresh])
def test_a_failed_warm_up_does_not_repeat_what_the_upstream_says(
    tmp_path: Path, clock: Clock, request_at: Callable[[], WarmUp]
) -> None:
    added = warm_ups.add_warm_up(tmp_path, request_at())
    run(tmp_path, clock, Denying(), added.queue)
    (failed,) = warm_ups.iter_warm_ups(tmp_path)
    assert (failed.state, failed.error) == ("failed", "the upstream answered 403")


@implementer(IRegistry)
@define
class Slow:
    """A registry that answers when the test says so.

    :ivar waiting: the requests without an answer.
    """

    waiting: list[Deferred[Answer]] = field(factory=list)

    async def fetch(self, request: RegistryRequest) -> Answer:
        self.waiting.append(Deferred())
        return await self.waiting[-1]


def test_tags_are_refreshed_beside_a_pull(tmp_path: Path, clock: Clock) -> None:
    """One that waits for a slow upstream holds up neither those before nor those after it."""
    pulls, tags = Slow(), Slow()
    for registry, queue in ((pulls, PULLS), (tags, TAG_REFRESHES)):
        WarmUpRunner(tmp_path, clock, inline, lambda it=registry: it, queue).startService()  # type: ignore[misc]
    for number in range(2):
        warm_ups.add_warm_up(tmp_path, wanted(at=EPOCH + number))
        warm_ups.add_warm_up(tmp_path, tag_refresh())
    clock.advance(POLL)
    assert (len(pulls.waiting), len(tags.waiting)) == (1, 2)
    warm_ups.add_warm_up(tmp_path, tag_refresh())
    clock.advance(POLL)
    assert (len(pulls.waiting), len(tags.waiting)) == (1, 3)
    pulls.waiting[0].errback(Denied())
    tags.waiting[1].errback(Denied())
    assert (len(pulls.waiting), len(tags.waiting)) == (2, 3)
    assert [each.state for each in warm_ups.iter_warm_ups(tmp_path, TAG_REFRESHES)].count("failed") == 1


def test_a_stop_interrupts_all(tmp_path: Path, clock: Clock) -> None:
    tags = Slow()
    for _ in range(2):
        warm_ups.add_warm_up(tmp_path, tag_refresh())
    run(tmp_path, clock, tags, TAG_REFRESHES)
    assert [each.called for each in tags.waiting] == [True, True]
    assert {each.state for each in warm_ups.iter_warm_ups(tmp_path)} == {"running"}


@implementer(IRegistry)
@frozen
class Answering:
    """A registry that answers every request for a manifest in the same way.

    :ivar asked: the requests so far.
    """

    status: CacheStatus
    asked: list[RegistryRequest] = field(factory=list)

    async def fetch(self, request: RegistryRequest) -> Answer:
        self.asked.append(request)
        return Answer(BytesBody(b"{}", Descriptor(digest=Digest.of(b"{}"))), cache=self.status)


@pytest.mark.parametrize(
    ("status", "state", "error"),
    [
        (CacheStatus(CacheResult.CONFIRMED), "done", ""),
        (CacheStatus(CacheResult.STORED), "done", ""),
        (
            CacheStatus(CacheResult.STALE, stale_reason="the upstream is down"),
            "failed",
            "the upstream is down",
        ),
        (CacheStatus(CacheResult.HIT), "failed", "the upstream was not asked"),
    ],
)
def test_only_a_tag_is_asked_about(
    tmp_path: Path, clock: Clock, status: CacheStatus, state: str, error: str
) -> None:
    """One request that revalidates; it fails if the upstream gave no answer to it."""
    registry = Answering(status)
    warm_ups.add_warm_up(tmp_path, tag_refresh())
    run(tmp_path, clock, registry, TAG_REFRESHES)
    (request,) = registry.asked
    assert (str(request.target), request.revalidate) == (f"/v2/{PLACE}/manifests/latest", True)
    (ended,) = warm_ups.iter_warm_ups(tmp_path)
    assert (ended.state, ended.error, ended.digest) == (state, error, str(Digest.of(b"{}")))


@pytest.mark.parametrize("request_at", [wanted, tag_refresh])
def test_a_warm_up_whose_end_cannot_be_written_is_not_repeated_at_once(
    tmp_path: Path, clock: Clock, request_at: Callable[[], WarmUp]
) -> None:
    registry, added = Slow(), warm_ups.add_warm_up(tmp_path, request_at())
    WarmUpRunner(tmp_path, clock, inline, lambda: registry, added.queue).startService()
    clock.advance(POLL)
    temporary = tmp_path / layout.TEMPORARY
    temporary.rmdir()
    temporary.write_text("in the way")
    registry.waiting[0].errback(Denied())
    temporary.unlink()
    clock.pump([POLL] * 10)
    assert len(registry.waiting) == 1
    clock.advance(REFRESH_RETRY)
    registry.waiting[1].errback(OSError(errno.EIO, "Input/output error"))
    (failed,) = warm_ups.iter_warm_ups(tmp_path)
    assert (failed.state, failed.error) == ("failed", "Input/output error")


def test_one_of_the_processes_runs_a_warm_up(tmp_path: Path, clock: Clock) -> None:
    shelf = Shelf()
    warm_ups.add_warm_up(tmp_path, wanted())
    held = warm_ups.lock_warm_ups(tmp_path, PULLS)
    assert held is not None
    run(tmp_path, clock, shelf)
    assert shelf.asked == []
    os.close(held)
    run(tmp_path, clock, shelf)
    assert shelf.asked


@pytest.mark.parametrize("request_at", [wanted, tag_refresh])
def test_warm_ups_are_bounded_in_number_and_time(tmp_path: Path, request_at: Callable[..., WarmUp]) -> None:
    """Malformed files are deleted, too.  A tag that is refreshed is forgotten after minutes."""
    added = warm_ups.add_warm_up(tmp_path, request_at(at=EPOCH))
    queue = added.queue
    for number in range(queue.limit - 1):
        path = tmp_path / layout.warm_up(queue.directory, f"{number:016}")
        path.write_bytes(b"{}")
        os.utime(path, (EPOCH, EPOCH))
    with pytest.raises(TooManyRequests, match=f"{queue.limit} {queue.noun} wait or have ended in the last"):
        warm_ups.add_warm_up(tmp_path, request_at(at=EPOCH))
    later = warm_ups.add_warm_up(tmp_path, request_at(at=EPOCH + queue.keep))
    assert [each.id for each in warm_ups.iter_warm_ups(tmp_path)] == [added.id, later.id]
    assert (PULLS.keep, TAG_REFRESHES.keep) == (24 * 3600.0, 600.0)


def test_refreshed_tags_do_not_count_as_pulls(tmp_path: Path) -> None:
    for _ in range(3):
        warm_ups.add_warm_up(tmp_path, tag_refresh())
    pull = warm_ups.add_warm_up(tmp_path, wanted())
    assert [each.id for each in warm_ups.iter_warm_ups(tmp_path, PULLS)] == [pull.id]
    assert warm_ups.read_warm_up(tmp_path, pull.id) == pull


def start_refresh(root: Path, clock: Clock, shelf: Shelf) -> PinRefresh:
    """Start the refresh of a process that serves."""
    service = PinRefresh(root, clock, inline, lambda: shelf)
    service.startService()
    return service


def test_pinned_images_are_pulled_on_a_schedule(tmp_path: Path, clock: Clock) -> None:
    """A new pin is pulled soon, but not at once, and again every few hours."""
    shelf = Shelf()
    pins.add_pin(tmp_path, PIN)
    service = start_refresh(tmp_path, clock, shelf)
    assert shelf.asked == []
    clock.advance(REFRESH_POLL)
    assert shelf.fetched() == sorted(["amd", "base", "a"])
    assert list(pins.iter_pins(tmp_path)) == [(PIN, EPOCH + REFRESH_POLL)]
    asked = len(shelf.asked)
    clock.pump([REFRESH_POLL] * int(REFRESH_PERIOD / REFRESH_POLL - 1))
    assert len(shelf.asked) == asked
    clock.pump([REFRESH_POLL] * int(PIN_READ_INTERVAL / REFRESH_POLL))
    assert len(shelf.asked) > asked
    service.stopService()
    asked = len(shelf.asked)
    clock.advance(REFRESH_PERIOD)
    assert len(shelf.asked) == asked


def test_pins_are_read_once_a_minute_while_none_is_due(tmp_path: Path, clock: Clock) -> None:
    """No thread is needed in between; a new pin is pulled soon nevertheless."""
    shelf, thread = Shelf(), CountedThread()
    pins.add_pin(tmp_path, PIN)
    pins.mark_refreshed(tmp_path, PIN, EPOCH)
    PinRefresh(tmp_path, clock, thread, lambda: shelf).startService()
    minutes = 10
    clock.pump([REFRESH_POLL] * int(minutes * PIN_READ_INTERVAL / REFRESH_POLL))
    assert (thread.calls, shelf.asked) == (minutes, [])
    pins.add_pin(tmp_path, evolve(PIN, platforms=()))
    clock.advance(REFRESH_POLL)
    assert shelf.asked != []


def test_one_of_the_processes_refreshes_a_pin(tmp_path: Path, clock: Clock) -> None:
    shelves = [Shelf(), Shelf()]
    pins.add_pin(tmp_path, PIN)
    services = [start_refresh(tmp_path, clock, shelf) for shelf in shelves]
    held = pins.lock_refresh(tmp_path)
    assert held is not None
    clock.advance(REFRESH_POLL)
    assert [shelf.asked for shelf in shelves] == [[], []]

    os.close(held)
    clock.advance(REFRESH_POLL)
    assert sorted(bool(shelf.asked) for shelf in shelves) == [False, True]
    for service in services:
        service.stopService()


def test_a_failed_refresh_is_logged_and_tried_again_later(tmp_path: Path, clock: Clock) -> None:
    """Other pins are refreshed nevertheless."""
    shelf = Shelf()
    gone = Pin(PLACE, Digest.of(b"gone"))
    pins.add_pin(tmp_path, gone)
    pins.add_pin(tmp_path, PIN)
    service = start_refresh(tmp_path, clock, shelf)
    with logged() as lines:
        clock.advance(REFRESH_POLL)
    assert any("cannot refresh" in line for line in lines)
    assert dict(pins.iter_pins(tmp_path))[gone] == 0
    assert dict(pins.iter_pins(tmp_path))[PIN] > 0
    shelf.asked.clear()
    clock.advance(REFRESH_RETRY - REFRESH_POLL)
    assert shelf.asked == []
    clock.pump([REFRESH_POLL] * int(PIN_READ_INTERVAL / REFRESH_POLL))
    assert [asked.rpartition("/")[2] for asked in shelf.asked] == [str(Digest.of(b"gone"))]
    service.stopService()


def test_a_refresh_that_cannot_be_recorded_has_failed(tmp_path: Path, clock: Clock) -> None:
    """The image is not pulled again at once."""
    shelf, threads = Shelf(), HeldThreads()
    pins.add_pin(tmp_path, PIN)
    PinRefresh(tmp_path, clock, threads, lambda: shelf).startService()
    clock.advance(REFRESH_POLL)
    for _ in range(3):
        threads.run()
    threads.fail(OSError(errno.EROFS, "Read-only file system"))
    asked = len(shelf.asked)
    clock.advance(REFRESH_POLL)
    threads.run()
    assert (threads.held, len(shelf.asked)) == (0, asked)


class FullShelf(Shelf):
    """A registry whose cache holds nothing of what was read, as on a full disk."""

    async def fetch(self, request: RegistryRequest) -> Answer:
        answer = await super().fetch(request)
        self.held.clear()
        return answer


def test_a_pinned_image_that_is_not_held_is_not_refreshed(tmp_path: Path, clock: Clock) -> None:
    """It counts as a failure, although all of it was pulled."""
    shelf = FullShelf()
    pins.add_pin(tmp_path, PIN)
    start_refresh(tmp_path, clock, shelf)
    with logged() as lines:
        clock.pump([REFRESH_POLL, *HELD_PAUSES])
    assert any("the mirror does not hold 5 of its parts" in line for line in lines)
    assert dict(pins.iter_pins(tmp_path)) == {PIN: 0.0}
    shelf.asked.clear()
    clock.advance(REFRESH_RETRY - REFRESH_POLL)
    assert shelf.asked == []
    clock.advance(PIN_READ_INTERVAL)
    assert shelf.fetched() == sorted(["amd", "base", "a"])


def test_a_warm_up_that_is_not_held_has_failed(tmp_path: Path, clock: Clock) -> None:
    warm_ups.add_warm_up(tmp_path, wanted())
    run(tmp_path, clock, FullShelf())
    (failed,) = warm_ups.iter_warm_ups(tmp_path)
    assert (failed.state, failed.fetched) == ("failed", 3)
    assert "the mirror does not hold 5 of its parts" in failed.error


def test_one_process_polls(tmp_path: Path) -> None:
    one, other = (PollTurns(tmp_path, inline, None, Clock()) for _ in range(2))
    release = now(one.claim())
    assert release is not None
    assert now(other.claim()) is None
    release()
    assert now(other.claim()) is not None


def test_one_mirror_of_a_bucket_polls(tmp_path: Path) -> None:
    """Each hour another one may; while the bucket is down, none does."""
    clock, store, threads = Clock(), MemoryStore(), BucketThreads()
    one, other = (
        PollTurns(tmp_path / name, inline, bucket(clock, store, threads), clock) for name in ("one", "other")
    )
    for first, second in ((one, other), (other, one)):
        release = now(first.claim())
        assert release is not None
        release()
        assert now(second.claim()) is None
        assert now(first.claim()) is None
        clock.advance(3600)
    threads.down = True
    assert now(one.claim()) is None
