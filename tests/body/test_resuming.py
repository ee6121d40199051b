"""Bodies that go on where their upstream broke off."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from dockmirror.body.wrappers import PAUSES, ResumingBody
from dockmirror.interfaces import IBody
from dockmirror.oci.descriptor import Descriptor
from dockmirror.oci.errors import Denied, RegistryError, TimedOut, Unavailable, Unreachable

from ..answering import Feed, Pieces, Recorder, now, watch

DATA = bytes(range(50))
BREAKS = st.lists(st.integers(0, 20), max_size=len(PAUSES))


class Upstream:
    """Sends the data from any offset on, but breaks off after each of these many bytes."""

    def __init__(self, *breaks: int) -> None:
        self.offsets: list[int] = []
        self._breaks = list(breaks)

    async def open(self, offset: int) -> IBody:
        """Return the body from there on."""
        self.offsets.append(offset)
        rest = DATA[offset:]
        if self._breaks:
            return Pieces([rest[: self._breaks.pop(0)]], error=Unreachable())
        return Pieces([rest])


class Feeds:
    """Opens contents that the test feeds."""

    def __init__(self) -> None:
        self.opened = [Feed()]
        self.clock = Clock()
        self.recorder = Recorder()
        self.delivery = ResumingBody(self.opened[0], self._open, self.clock).deliver(self.recorder)
        self.outcome = watch(self.delivery)

    async def _open(self, offset: int) -> IBody:
        self.opened.append(Feed())
        return self.opened[-1]

    def break_off(self) -> None:
        """The one that is open breaks off; the gap begins."""
        self.opened[-1].break_off()

    def go_on(self) -> None:
        """The gap ends."""
        self.clock.advance(max(PAUSES))


@given(BREAKS)
def test_a_body_that_breaks_off_arrives_complete(breaks: list[int]) -> None:
    """The rest is fetched each time, and no byte twice."""
    upstream, clock, recorder = Upstream(*breaks), Clock(), Recorder()
    content = ResumingBody(now(upstream.open(0)), upstream.open, clock)
    outcome = watch(content.deliver(recorder))
    clock.pump([max(PAUSES)] * len(PAUSES))
    assert (outcome, recorder.data) == ([None], DATA)
    assert upstream.offsets == [min(sum(breaks[:n]), len(DATA)) for n in range(len(breaks) + 1)]


def test_the_pauses_grow() -> None:
    """The first attempt is made at once, and each later one waits longer than the one before."""
    assert all(one < other for one, other in pairwise(PAUSES))
    upstream, clock = Upstream(*[1] * len(PAUSES)), Clock()
    outcome = watch(ResumingBody(now(upstream.open(0)), upstream.open, clock).deliver(Recorder()))
    for attempt, pause in enumerate(PAUSES, start=1):
        if pause:
            clock.advance(pause * 0.9)
            assert len(upstream.offsets) == attempt
        clock.advance(pause * 0.1)
        assert len(upstream.offsets) == attempt + 1
    assert outcome == [None]


def test_resumption_is_given_up_after_the_last_pause() -> None:
    """The upstream's last failure is raised."""
    upstream, clock, recorder = Upstream(*[1] * (len(PAUSES) + 1)), Clock(), Recorder()
    outcome = watch(ResumingBody(now(upstream.open(0)), upstream.open, clock).deliver(recorder))
    clock.pump([max(PAUSES)] * len(PAUSES))
    assert [type(error) for error in outcome] == [Unreachable]
    assert recorder.data == DATA[: len(PAUSES) + 1]
    assert not clock.getDelayedCalls()


def test_a_failed_attempt_is_repeated() -> None:
    """Each attempt counts."""
    clock, recorder, offsets = Clock(), Recorder(), list[int]()

    async def reopen(offset: int) -> IBody:
        offsets.append(offset)
        if len(offsets) < 3:
            raise TimedOut("no answer in time")
        return Pieces([DATA[offset:]])

    outcome = watch(ResumingBody(Pieces([DATA[:7]], error=Unreachable()), reopen, clock).deliver(recorder))
    clock.pump([max(PAUSES)] * 3)
    assert (outcome, recorder.data, offsets) == ([None], DATA, [7, 7, 7])


@pytest.mark.parametrize("error", [Denied(), Unavailable("another range")])
def test_a_refusal_is_not_retried(error: RegistryError) -> None:
    """The upstream has answered: the token has expired, or it serves no ranges."""
    clock = Clock()

    async def reopen(offset: int) -> IBody:
        raise error

    outcome = watch(ResumingBody(Pieces([b"a"], error=Unreachable()), reopen, clock).deliver(Recorder()))
    clock.advance(0)
    assert outcome == [error]
    assert not clock.getDelayedCalls()


def test_corrupt_content_is_not_retried() -> None:
    """Only a body that broke off is resumed."""
    error = Unavailable("corrupt")
    upstream = Upstream()
    outcome = watch(ResumingBody(Pieces([b"a"], error=error), upstream.open, Clock()).deliver(Recorder()))
    assert (outcome, upstream.offsets) == ([error], [])


def test_the_consumer_sees_one_producer() -> None:
    """From the first body's beginning to the last one's end, gaps included."""
    feeds = Feeds()
    seen = [feeds.recorder.producer]
    feeds.opened[0].send(b"a")
    feeds.break_off()
    seen.append(feeds.recorder.producer)
    feeds.go_on()
    seen.append(feeds.recorder.producer)
    assert not feeds.opened[1].paused
    feeds.opened[1].send(b"b")
    feeds.opened[1].end()
    assert (feeds.outcome, feeds.recorder.data, feeds.recorder.producer) == ([None], b"ab", None)
    assert seen[0] is not None
    assert seen == seen[:1] * 3


def test_a_pause_survives_the_gap() -> None:
    """A consumer that waits is not sent the next body until it asks for more."""
    feeds = Feeds()
    feeds.recorder.pause()
    feeds.break_off()
    feeds.go_on()
    assert feeds.opened[1].paused
    feeds.recorder.resume()
    assert not feeds.opened[1].paused


def test_back_pressure_in_the_gap_is_remembered() -> None:
    """The consumer's last word holds for the next body."""
    feeds = Feeds()
    feeds.break_off()
    feeds.recorder.pause()
    feeds.go_on()
    assert feeds.opened[1].paused
    feeds.break_off()
    feeds.recorder.resume()
    feeds.go_on()
    assert not feeds.opened[2].paused


def test_nothing_is_fetched_for_a_consumer_that_stops_in_the_gap() -> None:
    """No further body is opened."""
    feeds = Feeds()
    feeds.break_off()
    feeds.recorder.leave()
    feeds.go_on()
    assert len(feeds.opened) == 1
    assert [type(error) for error in feeds.outcome] == [Unreachable]
    assert feeds.recorder.producer is None


def test_a_consumer_that_leaves_while_the_next_body_is_opened_is_sent_nothing() -> None:
    """That body is stopped as soon as it is there."""
    clock, recorder, opening, feed = Clock(), Recorder(), Deferred[IBody](), Feed()

    async def reopen(offset: int) -> IBody:
        return await opening

    first = Feed()
    outcome = watch(ResumingBody(first, reopen, clock).deliver(recorder))
    first.break_off()
    clock.advance(0)
    recorder.leave()
    opening.callback(feed)
    feed.send(b"a")
    assert (feed.state, recorder.data, recorder.producer) == ("stopped", b"", None)
    assert [type(error) for error in outcome] == [Unreachable]


def test_a_stopped_body_is_not_resumed() -> None:
    """A body that its consumer stopped has not broken off."""
    feeds = Feeds()
    feeds.recorder.leave()
    feeds.go_on()
    assert (len(feeds.opened), feeds.opened[0].state) == (1, "stopped")
    assert [type(error) for error in feeds.outcome] == [Unreachable]


def test_a_delivery_can_be_cancelled_in_the_gap() -> None:
    """Nothing stays scheduled or registered."""
    feeds = Feeds()
    feeds.break_off()
    feeds.delivery.cancel()
    assert [type(error) for error in feeds.outcome] == [CancelledError]
    assert not feeds.clock.getDelayedCalls()
    assert (len(feeds.opened), feeds.recorder.producer) == (1, None)


def test_a_delivery_can_be_cancelled_while_the_next_body_is_opened() -> None:
    """The request is cancelled, too."""
    clock, recorder, first = Clock(), Recorder(), Feed()
    left: list[object] = []
    opening: Deferred[IBody] = Deferred(left.append)

    async def reopen(offset: int) -> IBody:
        return await opening

    delivery = ResumingBody(first, reopen, clock).deliver(recorder)
    outcome = watch(delivery)
    first.break_off()
    clock.advance(0)
    delivery.cancel()
    assert [type(error) for error in outcome] == [CancelledError]
    assert (left, recorder.producer) == ([opening], None)


def test_a_delivery_can_be_cancelled_in_a_later_body() -> None:
    """That body is released."""
    feeds = Feeds()
    feeds.break_off()
    feeds.go_on()
    feeds.delivery.cancel()
    assert feeds.opened[1].state == "cancelled"
    assert [type(error) for error in feeds.outcome] == [CancelledError]


def test_a_resumed_body_keeps_its_descriptor() -> None:
    """Clients were told the first one's."""
    descriptor = Descriptor("a/b", None, 50)
    assert ResumingBody(Feed(descriptor), Upstream().open, Clock()).descriptor is descriptor
