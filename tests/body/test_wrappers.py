"""Bodies that wrap another body: limited, sliced, copied, observed, resumed."""

from __future__ import annotations

import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IConsumer
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from dockmirror.body.bodies import PAUSES, CompletionObserver, ResumingBody, SizeLimitedBody, Slice, Tee
from dockmirror.interfaces import IBody
from dockmirror.oci.digest import Descriptor, Digest
from dockmirror.oci.errors import Denied, RegistryError, TimedOut, Unavailable, Unreachable

from ..answering import Feed, Pieces, Recorder, now, watch
from ..values import CHUNKS, cuts

DIGITS = b"0123456789"
DATA = bytes(range(40))
PIECES = cuts(DATA)
OFFSETS = st.integers(0, len(DATA))
THREE = Descriptor(size=3)


@pytest.mark.parametrize(
    ("limit", "delivered"),
    [(11, DIGITS), (10, DIGITS), (9, DIGITS[:5]), (5, DIGITS[:5]), (4, b""), (0, b"")],
)
def test_a_body_beyond_the_limit_is_cancelled(limit: int, delivered: bytes) -> None:
    """The piece that exceeds it is not passed on; a body that writes all at once fails, too."""
    feed, recorder = Feed(), Recorder()
    outcome = watch(SizeLimitedBody(feed, limit).deliver(recorder))
    feed.send(DIGITS[:5], DIGITS[5:])
    feed.end()
    assert [type(each) for each in outcome] == [type(None) if limit >= 10 else Unavailable]
    assert (feed.state, recorder.data) == ("whole" if limit >= 10 else "cancelled", delivered)
    if limit < 10:
        with pytest.raises(Unavailable, match=f"larger than {limit} bytes"):
            now(SizeLimitedBody(Pieces([DIGITS]), limit).deliver(Recorder()))


@given(PIECES, OFFSETS, st.data(), st.booleans(), st.booleans())
def test_a_slice_equals_pythons(
    pieces: list[bytes], first: int, data: st.DataObject, at_once: bool, is_size_known: bool
) -> None:
    """However the body is cut, with a length or to the end, with a known size or not."""
    length: int | None = data.draw(st.none() | st.integers(0, len(DATA) - first))
    descriptor = Descriptor(size=len(DATA) if is_size_known else None)
    feed, recorder = Feed(descriptor), Recorder()
    content = Slice(Pieces(pieces, descriptor) if at_once else feed, first, length)
    outcome = watch(content.deliver(recorder))
    feed.send(*pieces)
    feed.end()
    assert outcome == [None]
    assert recorder.data == DATA[first:][:length]
    assert recorder.producer is None


@given(PIECES, st.integers(0, 60), st.none() | st.integers(1, 60))
def test_an_incomplete_slice_fails(pieces: list[bytes], first: int, length: int | None) -> None:
    """The body ended before it, without breaking off; one that ends at the offset has an empty rest."""
    recorder = Recorder()
    outcome = watch(Slice(Pieces(pieces), first, length).deliver(recorder))
    assert recorder.data == DATA[first:][:length]
    assert (outcome == [None]) == (first + (length or 0) <= len(DATA))
    assert outcome == [None] or isinstance(outcome[0], Unreachable)


class FirstPieceFeed(Feed):
    """A feed that sends its first bytes at once."""

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        delivery = super().deliver(consumer)
        self.send(b"abcd")
        return delivery


@pytest.mark.parametrize(
    ("size", "pieces", "state"),
    [(1000, [b"ab", b"cd"], "cancelled"), (3, [b"abc"], "open"), (3, [b"abc", b"d"], "cancelled")],
    ids=["in the middle", "at the end", "longer than announced"],
)
def test_the_delivery_is_cancelled_after_the_slice(size: int, pieces: list[bytes], state: str) -> None:
    """The rest of a layer may be a gigabyte; the connection of a body that ends stays usable."""
    feed, recorder = Feed(Descriptor(size=size)), Recorder()
    outcome = watch(Slice(feed, 1, 2).deliver(recorder))
    feed.send(*pieces)
    assert feed.state == state
    feed.end()
    assert (outcome, recorder.data) == ([None], b"bc")
    begun, recorder = FirstPieceFeed(), Recorder()
    assert now(Slice(begun, 1, 2).deliver(recorder)) is None
    assert (begun.state, recorder.data) == ("cancelled", b"bc")


def test_a_running_coroutine_is_cancelled_at_the_next_piece() -> None:
    """A cancellation from within has no effect until then."""
    opening: Deferred[FirstPieceFeed] = Deferred()

    async def reopen(_: int) -> IBody:
        return await opening

    first, begun, recorder, clock = Feed(), FirstPieceFeed(), Recorder(), Clock()
    outcome = watch(Slice(ResumingBody(first, reopen, clock), 1, 2).deliver(recorder))
    first.break_off()
    clock.advance(0)
    opening.callback(begun)
    begun.send(b"efgh")
    assert (outcome, begun.state, recorder.data) == ([None], "cancelled", b"bc")


@pytest.mark.parametrize(
    ("error", "first", "length", "is_raised"),
    [
        (Unreachable("broken off"), 0, 3, False),
        (Unreachable("broken off"), 1, 3, True),
        (Unreachable("broken off"), 1, None, True),
        (Unavailable("corrupt"), 0, 3, True),
    ],
)
def test_a_break_after_the_slice_is_ignored(
    error: RegistryError, first: int, length: int | None, is_raised: bool
) -> None:
    """All that was requested has arrived.  Corrupt content is never hidden."""
    for delivery in (
        Slice(Pieces([b"abc"], error=error), first, length).deliver(Recorder()),
        Slice(Pieces([b"abc"], THREE, error), first, length).deliver(Recorder()),
    ):
        assert watch(delivery) == ([error] if is_raised else [None])


def test_a_slice_has_its_own_descriptor() -> None:
    """It has its own size, and not the body's digest; a copied or resumed body keeps the descriptor."""
    descriptor = Descriptor("a/b", Digest.of(b""), 40)
    assert Slice(Feed(descriptor), 1, 2).descriptor == Descriptor("a/b", None, 2)
    assert Slice(Feed(descriptor), 1).descriptor == Descriptor("a/b", None, None)
    assert Tee(Feed(descriptor), 10, print).descriptor is descriptor
    assert ResumingBody(Feed(descriptor), Upstream().open, Clock()).descriptor is descriptor


class Discarder(Recorder):
    """A consumer that keeps nothing."""

    def write(self, data: bytes) -> None:
        pass


@given(CHUNKS, st.integers(0, 60), st.sampled_from(["end", "break off", "cancel"]))
def test_a_tee_copies_up_to_a_limit(chunks: list[bytes], limit: int, ending: str) -> None:
    """The copy is complete or not made; the consumer gets everything."""
    data, copies = b"".join(chunks), list[bytes]()
    feed, recorder = Feed(), Recorder()
    delivery = Tee(feed, limit, copies.append).deliver(recorder)
    outcome = watch(delivery)
    feed.send(*chunks)
    assert copies == []
    {"end": feed.end, "break off": feed.break_off, "cancel": delivery.cancel}[ending]()
    assert recorder.data == data
    assert (outcome == [None]) == (ending == "end")
    assert copies == ([data] if len(data) <= limit and ending == "end" else [])


def test_a_body_beyond_the_limit_is_not_buffered() -> None:
    """The first byte beyond the limit drops the copy."""
    feed = Feed()
    Tee(feed, 1500, lambda _: None).deliver(Discarder())
    pieces = [b"".join([b"x", bytes(1000)]) for _ in range(3)]
    before = [sys.getrefcount(piece) for piece in pieces]
    feed.send(*pieces)
    assert [sys.getrefcount(piece) for piece in pieces] == before


@pytest.mark.parametrize("ending", ["end", "break off", "cancel"])
def test_only_a_complete_delivery_is_reported(ending: str) -> None:
    """All bytes have been written by then; neither a failure nor a discarded body is reported."""
    reports: list[bytes] = []
    feed, recorder = Feed(), Recorder()

    async def report() -> None:
        reports.append(recorder.data)

    content = CompletionObserver(feed, report)
    assert verifyObject(IBody, content)
    delivery = content.deliver(recorder)
    outcome = watch(delivery)
    feed.send(b"a", b"b")
    assert reports == []
    {"end": feed.end, "break off": feed.break_off, "cancel": delivery.cancel}[ending]()
    errors = {"end": type(None), "break off": Unreachable, "cancel": CancelledError}
    assert [type(each) for each in outcome] == [errors[ending]]
    unwanted = Feed()
    CompletionObserver(unwanted, report).discard()
    assert unwanted.state == "discarded"
    assert reports == [b"ab"] * (ending == "end")


class Upstream:
    """Sends the data from any offset on, but breaks off after each of these many bytes."""

    def __init__(self, *breaks: int) -> None:
        self.offsets: list[int] = []
        self.clock, self.recorder = Clock(), Recorder()
        self._breaks = list(breaks)

    async def open(self, offset: int) -> IBody:
        """Return the body from there on."""
        self.offsets.append(offset)
        rest = DATA[offset:]
        if self._breaks:
            return Pieces([rest[: self._breaks.pop(0)]], error=Unreachable())
        return Pieces([rest])

    def deliver(self) -> list[BaseException | None]:
        """Deliver a resuming body, and return the outcome."""
        content = ResumingBody(now(self.open(0)), self.open, self.clock)
        return watch(content.deliver(self.recorder))


@given(st.lists(st.integers(0, 20), max_size=len(PAUSES)))
def test_a_body_that_breaks_off_arrives_complete(breaks: list[int]) -> None:
    """The rest is fetched each time, and no byte twice."""
    upstream = Upstream(*breaks)
    outcome = upstream.deliver()
    upstream.clock.pump([max(PAUSES)] * len(PAUSES))
    assert (outcome, upstream.recorder.data) == ([None], DATA)
    assert upstream.offsets == [min(sum(breaks[:n]), len(DATA)) for n in range(len(breaks) + 1)]


@pytest.mark.parametrize("breaks", [len(PAUSES), len(PAUSES) + 1])
def test_resumption_is_given_up_after_the_last_pause(breaks: int) -> None:
    """The first attempt is made at once, each later one after a longer pause; the last failure is raised."""
    assert all(one < other for one, other in pairwise(PAUSES))
    upstream = Upstream(*[1] * breaks)
    outcome = upstream.deliver()
    for attempt, pause in enumerate(PAUSES, start=1):
        if pause:
            upstream.clock.advance(pause * 0.9)
            assert len(upstream.offsets) == attempt
        upstream.clock.advance(pause * 0.1)
        assert len(upstream.offsets) == attempt + 1
    assert [type(each) for each in outcome] == [Unreachable if breaks > len(PAUSES) else type(None)]
    assert upstream.recorder.data == (DATA[:breaks] if breaks > len(PAUSES) else DATA)
    assert not upstream.clock.getDelayedCalls()


@pytest.mark.parametrize(
    ("error", "reopening_errors", "attempts"),
    [
        (Unreachable(), [TimedOut("no answer in time")] * 2, 3),
        (Unreachable(), [Denied()], 1),
        (Unreachable(), [Unavailable("another range")], 1),
        (Unavailable("corrupt"), [], 0),
    ],
)
def test_only_a_break_is_retried(
    error: RegistryError, reopening_errors: list[RegistryError], attempts: int
) -> None:
    """A refusal is an answer: the token has expired, the upstream serves no ranges, or it is corrupt."""
    clock, recorder, offsets = Clock(), Recorder(), list[int]()
    errors = iter(reopening_errors)

    async def reopen(offset: int) -> IBody:
        offsets.append(offset)
        for failure in errors:
            raise failure
        return Pieces([DATA[offset:]])

    outcome = watch(ResumingBody(Pieces([DATA[:7]], error=error), reopen, clock).deliver(recorder))
    clock.pump([max(PAUSES)] * 3)
    assert offsets == [7] * attempts
    assert (outcome, recorder.data) == (([None], DATA) if attempts == 3 else ([outcome[0]], DATA[:7]))
    assert outcome[0] in [None, error, *reopening_errors]
    assert not clock.getDelayedCalls()


class Resumption:
    """A resuming body, all of whose bodies the test feeds.

    :ivar opening: fires to let a further body be opened, if the test sets it.
    """

    def __init__(self) -> None:
        self.feeds = [Feed()]
        self.clock, self.recorder = Clock(), Recorder()
        self.opening: Deferred[None] | None = None
        self.delivery = ResumingBody(self.feeds[0], self._open, self.clock).deliver(self.recorder)
        self.outcome = watch(self.delivery)

    async def _open(self, offset: int) -> IBody:
        if self.opening is not None:
            await self.opening
        self.feeds.append(Feed())
        return self.feeds[-1]

    def break_off(self) -> None:
        """Break the current body off, and begin a pause."""
        self.feeds[-1].break_off()

    def end_pause(self) -> None:
        self.clock.advance(max(PAUSES))

    def assert_ended(self, error: type[Exception], feeds: int) -> None:
        """Expect that nothing stays scheduled or registered."""
        assert [type(each) for each in self.outcome] == [error]
        assert (len(self.feeds), self.recorder.producer) == (feeds, None)
        assert not self.clock.getDelayedCalls()


@pytest.fixture
def resumption() -> Resumption:
    return Resumption()


def test_the_consumer_sees_one_producer(resumption: Resumption) -> None:
    """From the first body's beginning to the last one's end, pauses included."""
    producers = [resumption.recorder.producer]
    resumption.feeds[0].send(b"a")
    resumption.break_off()
    producers.append(resumption.recorder.producer)
    resumption.end_pause()
    producers.append(resumption.recorder.producer)
    assert not resumption.feeds[1].paused
    resumption.feeds[1].send(b"b")
    resumption.feeds[1].end()
    assert (resumption.outcome, resumption.recorder.data) == ([None], b"ab")
    assert resumption.recorder.producer is None
    assert producers[0] is not None
    assert producers == producers[:1] * 3


def test_back_pressure_is_kept_for_the_next_body(resumption: Resumption) -> None:
    """From before a break, and from the pause after it."""
    resumption.recorder.pause()
    resumption.break_off()
    resumption.end_pause()
    assert resumption.feeds[1].paused
    resumption.break_off()
    resumption.recorder.resume()
    resumption.end_pause()
    assert not resumption.feeds[2].paused
    resumption.break_off()
    resumption.recorder.pause()
    resumption.end_pause()
    assert resumption.feeds[3].paused


@pytest.mark.parametrize("breaks", [0, 1])
@pytest.mark.parametrize("error", [CancelledError, Unreachable])
def test_a_consumer_that_has_gone_ends_a_delivery(
    resumption: Resumption, breaks: int, error: type[Exception]
) -> None:
    """In a body or in a pause, and if the delivery is cancelled, too; no further body is opened."""
    for _ in range(breaks):
        resumption.break_off()
    resumption.recorder.leave() if error is Unreachable else resumption.delivery.cancel()
    resumption.end_pause()
    state = "broken" if breaks else "stopped" if error is Unreachable else "cancelled"
    assert resumption.feeds[0].state == state
    resumption.assert_ended(error, feeds=1)


def test_a_delivery_may_end_while_the_next_body_is_opened(resumption: Resumption) -> None:
    """If its consumer leaves that body is stopped; if it is cancelled its request is, too."""
    resumption.opening = Deferred()
    resumption.break_off()
    resumption.clock.advance(0)
    resumption.recorder.leave()
    resumption.opening.callback(None)
    resumption.feeds[1].send(b"a")
    assert (resumption.feeds[1].state, resumption.recorder.data) == ("stopped", b"")
    resumption.assert_ended(Unreachable, feeds=2)
    other, cancelled = Resumption(), list[object]()
    other.opening = Deferred(cancelled.append)
    other.break_off()
    other.clock.advance(0)
    other.delivery.cancel()
    assert cancelled == [other.opening]
    other.assert_ended(CancelledError, feeds=1)


def test_cancelling_releases_a_later_body(resumption: Resumption) -> None:
    resumption.break_off()
    resumption.end_pause()
    resumption.delivery.cancel()
    assert resumption.feeds[1].state == "cancelled"
    resumption.assert_ended(CancelledError, feeds=2)
