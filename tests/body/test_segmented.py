"""Contents that come by several connections at once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from dockmirror.body.segmented import SegmentedBody
from dockmirror.body.wrappers import PAUSES
from dockmirror.interfaces import IBody
from dockmirror.oci.descriptor import Descriptor
from dockmirror.oci.errors import Denied, RegistryError, TooManyRequests, Unavailable, Unreachable
from dockmirror.oci.ranges import ContentRange

from ..answering import Feed, Pieces, Recorder, watch

SIZE = 100
PIECE = 10
DATA = bytes(range(SIZE))


@define(eq=False)
class Connection:
    """One request for a part, and what comes of it.

    :ivar answer: fires with the part.
    :ivar position: up to where it was sent.
    """

    first: int
    last: int
    answer: Deferred[IBody] = field(factory=Deferred)
    feed: Feed = field(factory=Feed)
    position: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.position = self.first

    @property
    def pending(self) -> bool:
        """True while it waits for its answer."""
        return not self.answer.called

    @property
    def at_work(self) -> bool:
        """True while its connection is in use."""
        return self.pending or self.feed.state == "open"

    def give(self) -> None:
        """It is answered."""
        self.answer.callback(self.feed)

    def refuse(self, error: RegistryError) -> None:
        """It is answered with that."""
        self.answer.errback(error)

    def send(self, count: int = SIZE) -> None:
        """Some bytes come, if it is not paused, and its end after the last."""
        if self.feed.state == "open" and not self.feed.paused:
            piece = DATA[self.position : min(self.position + count, self.last + 1)]
            self.position += len(piece)
            self.feed.send(piece)
            if self.position > self.last:
                self.feed.end()


class Strict(Recorder):
    """Is written nothing while it is paused."""

    paused = False

    def write(self, data: bytes) -> None:
        assert not self.paused
        super().write(data)

    def pause(self) -> None:
        """Takes no more for a while."""
        self.paused = True
        super().pause()

    def resume(self) -> None:
        """Takes more."""
        self.paused = False
        super().resume()


class Fetch:
    """A content in segments on its way to a consumer."""

    def __init__(self, segments: int = 4, first: int = 0, size: int = SIZE) -> None:
        self.clock = Clock()
        self.consumer = Strict()
        self.segments = segments
        self.lead = Connection(first, size - 1)
        self.lead.answer.callback(self.lead.feed)
        self.parts: list[Connection] = []
        part = ContentRange(first, size - 1, size)
        content = SegmentedBody(self.lead.feed, part, self._open, segments, self.clock, PIECE)
        self.delivery = content.deliver(self.consumer)
        self.outcome = watch(self.delivery)

    def _open(self, first: int, last: int) -> Deferred[IBody]:
        self.parts.append(Connection(first, last))
        return self.parts[-1].answer

    @property
    def asked(self) -> list[tuple[int, int]]:
        """The parts that were asked for."""
        return [(part.first, part.last) for part in self.parts]

    @property
    def at_work(self) -> list[Connection]:
        """The connections that there are now."""
        return [each for each in (self.lead, *self.parts) if each.at_work]

    @property
    def held(self) -> int:
        """Return the bytes that arrived and were not written."""
        came = sum(part.position - part.first for part in self.parts)
        given = [part.first for part in self.parts if part.answer.called and part.feed.state != "kept"]
        led = min(given, default=SIZE) if self.lead.feed.state == "cancelled" else self.lead.position
        return came - (self.lead.first + len(self.consumer.data) - led)

    def go_on(self) -> None:
        """All that may come comes, until it is over."""
        for _ in range(100):
            while pending := [each for each in self.at_work if each.pending]:
                pending[0].give()
            for each in self.at_work:
                each.send()
            self.clock.advance(max(PAUSES))

    def check(self) -> None:
        """Check the limits that hold at any time."""
        assert DATA[self.lead.first :].startswith(self.consumer.data)
        assert len(self.at_work) <= self.segments
        if not self.outcome:
            assert 0 <= self.held <= self.segments * PIECE


def test_segments_are_fetched_ahead() -> None:
    """The first one shows that ranges are served; then all connections are used."""
    fetch = Fetch()
    assert fetch.asked == [(10, 19)]
    fetch.parts[0].give()
    assert fetch.asked == [(10, 19), (20, 29), (30, 39)]
    fetch.lead.send(10)
    assert (fetch.lead.feed.state, fetch.asked[3:]) == ("cancelled", [(40, 49)])
    fetch.go_on()
    assert (fetch.outcome, fetch.consumer.data, fetch.consumer.producer) == ([None], DATA, None)
    assert fetch.asked == [(first, first + 9) for first in range(10, 100, 10)]


def test_early_segments_wait_for_their_turn() -> None:
    """Bytes are written in order; those at the front as they arrive."""
    fetch = Fetch()
    fetch.parts[0].give()
    for part in fetch.parts[1:]:
        part.give()
        part.send()
    fetch.parts[0].send(3)
    assert (fetch.consumer.data, fetch.held) == (b"", 23)
    fetch.lead.send(10)
    assert (fetch.consumer.data, fetch.held) == (DATA[:13], 20)
    fetch.parts[0].send(1)
    assert fetch.consumer.data == DATA[:14]
    fetch.parts[0].send()
    assert fetch.consumer.data == DATA[:40]


def test_the_rest_of_a_body_is_segmented() -> None:
    """It starts where the body broke off; its last segment may be short."""
    fetch = Fetch(first=33, size=95)
    fetch.go_on()
    assert (fetch.outcome, fetch.consumer.data) == ([None], DATA[33:95])
    assert fetch.asked[0] == (43, 52)
    assert fetch.asked[-1] == (93, 94)


@pytest.mark.parametrize("error", [Unavailable("the whole"), TooManyRequests(), Unreachable()])
def test_without_ranges_one_connection_goes_on(error: RegistryError) -> None:
    """It goes on to the end, and nothing more is fetched."""
    fetch = Fetch()
    fetch.parts[0].refuse(error)
    fetch.lead.send()
    assert (fetch.outcome, fetch.consumer.data, len(fetch.parts)) == ([None], DATA, 1)


def test_a_late_segment_is_skipped() -> None:
    """The leading body goes on, and a later segment is fetched."""
    fetch = Fetch()
    fetch.lead.send(12)
    assert fetch.consumer.data == DATA[:12]
    assert fetch.asked == [(10, 19), (32, 41)]
    assert fetch.at_work == [fetch.lead, fetch.parts[1]]
    fetch.lead.send(20)
    assert fetch.asked[2:] == [(72, 81)]
    fetch.go_on()
    assert (fetch.outcome, fetch.consumer.data) == ([None], DATA)


def test_the_leading_body_may_end_before_a_segment_arrives() -> None:
    """The segment is not waited for."""
    fetch = Fetch()
    fetch.lead.send()
    assert (fetch.outcome, fetch.consumer.data, fetch.at_work) == ([None], DATA, [])


def test_a_refused_segment_costs_a_connection() -> None:
    """It is fetched again when its turn comes."""
    fetch = Fetch()
    fetch.parts[0].give()
    for part in fetch.parts[1:]:
        part.refuse(TooManyRequests())
    fetch.lead.send(10)
    fetch.parts[0].send()
    assert fetch.asked[3:] == [(20, 29)]
    fetch.parts[3].give()
    fetch.parts[3].send()
    assert fetch.asked[4:] == [(40, 49), (30, 39)]
    fetch.go_on()
    assert (fetch.outcome, fetch.consumer.data) == ([None], DATA)


def test_the_last_connection_fetches_the_rest() -> None:
    """If only one is admitted, it fetches all that is left."""
    fetch = Fetch(segments=2)
    fetch.parts[0].give()
    fetch.lead.send(10)
    assert fetch.asked[1:] == [(20, 29)]
    fetch.parts[1].refuse(TooManyRequests())
    fetch.parts[0].send()
    fetch.parts[2].give()
    fetch.parts[2].send()
    assert fetch.asked[2:] == [(20, 29), (30, 99)]


@pytest.mark.parametrize("error", [Denied("no more"), Unavailable(), Unreachable("gone")])
def test_a_segment_refused_in_its_turn_breaks_the_body_off(error: RegistryError) -> None:
    """The body fails as if the upstream had broken off."""
    fetch = Fetch(segments=2)
    fetch.parts[0].give()
    fetch.parts[0].send(5)
    fetch.parts[0].feed.break_off(Unavailable())
    fetch.lead.send(10)
    fetch.parts[1].refuse(error)
    assert [type(each) for each in fetch.outcome] == [Unreachable]
    assert (fetch.consumer.data, fetch.consumer.producer, fetch.at_work) == (DATA[:15], None, [])


def test_a_segment_that_breaks_off_is_resumed() -> None:
    """It is resumed before its turn and in it."""
    fetch = Fetch()
    fetch.parts[0].give()
    fetch.parts[0].send(4)
    fetch.parts[0].feed.break_off()
    fetch.clock.advance(0)
    assert fetch.asked[3:] == [(14, 19)]
    fetch.lead.send(10)
    fetch.parts[3].give()
    fetch.parts[3].send(3)
    fetch.parts[3].feed.break_off()
    fetch.clock.advance(PAUSES[1])
    assert (17, 19) in fetch.asked
    fetch.go_on()
    assert (fetch.outcome, fetch.consumer.data) == ([None], DATA)


def test_a_segment_may_break_off_after_its_last_byte() -> None:
    """Nothing is left to fetch."""
    fetch = Fetch()
    fetch.parts[0].give()
    fetch.parts[0].feed.send(DATA[10:20])
    fetch.parts[0].feed.break_off()
    fetch.clock.advance(0)
    fetch.lead.send(10)
    assert fetch.consumer.data == DATA[:20]


def test_segments_ahead_ignore_back_pressure() -> None:
    """Their connections are released; only the front waits, and nothing new is fetched."""
    fetch = Fetch()
    fetch.parts[0].give()
    fetch.lead.send(10)
    fetch.parts[0].send(1)
    fetch.consumer.pause()
    assert fetch.parts[0].feed.paused
    for part in fetch.parts[1:]:
        part.give()
        part.send()
    assert fetch.at_work == [fetch.parts[0]]
    assert len(fetch.parts) == 4
    fetch.consumer.resume()
    assert not fetch.parts[0].feed.paused
    fetch.parts[0].send()
    assert fetch.consumer.data == DATA[:50]


def test_the_front_segment_follows_back_pressure() -> None:
    """A pause from before it arrived holds."""
    fetch = Fetch()
    fetch.parts[0].give()
    fetch.lead.send(10)
    fetch.parts[0].send()
    fetch.consumer.pause()
    fetch.parts[1].give()
    assert fetch.parts[1].feed.paused
    fetch.consumer.resume()
    assert not fetch.parts[1].feed.paused


def test_buffered_pieces_follow_back_pressure() -> None:
    """They are written one by one to a consumer that takes one at a time."""
    fetch = Fetch()
    fetch.parts[0].give()
    for _ in range(10):
        fetch.parts[0].send(1)
    fetch.consumer.pause()
    assert fetch.lead.feed.paused
    fetch.consumer.resume()
    pausing = iter([True, False])

    def write(data: bytes) -> None:
        fetch.consumer.pieces.append(data)
        if next(pausing, True):
            fetch.consumer.pause()

    fetch.consumer.write = write  # type: ignore[method-assign]
    fetch.lead.send(10)
    assert fetch.consumer.data == DATA[:10]
    fetch.consumer.resume()
    assert fetch.consumer.data == DATA[:12]
    for count in range(13, 20):
        fetch.consumer.resume()
        assert fetch.consumer.data == DATA[:count]


@pytest.mark.parametrize(
    "leave", [lambda fetch: fetch.delivery.cancel(), lambda fetch: fetch.consumer.leave()]
)
@pytest.mark.parametrize("sent", [5, 10])
def test_a_segmented_body_releases_all_connections(leave: Callable[[Fetch], None], sent: int) -> None:
    """Whichever segment is at the front, answered or not."""
    fetch = Fetch()
    fetch.parts[0].give()
    fetch.parts[1].give()
    fetch.lead.send(sent)
    leave(fetch)
    fetch.clock.advance(max(PAUSES))
    assert [type(each) for each in fetch.outcome] in ([CancelledError], [Unreachable])
    assert (fetch.at_work, fetch.consumer.producer, fetch.clock.getDelayedCalls()) == ([], None, [])


def test_a_consumer_may_stop_while_a_segment_is_opened() -> None:
    """The segment is released when it arrives."""
    fetch = Fetch()
    fetch.parts[0].give()
    fetch.lead.send(10)
    fetch.parts[0].send()
    fetch.consumer.leave()
    fetch.parts[1].give()
    assert fetch.parts[1].feed.state == "stopped"
    assert [type(each) for each in fetch.outcome] == [Unreachable]
    assert fetch.at_work == []


def test_bodies_written_at_once_are_cut_too() -> None:
    """Segments that have arrived already follow the leading body."""
    asked: list[int] = []

    async def open_range(first: int, last: int) -> IBody:
        asked.append(first)
        return Pieces([DATA[first : last + 1]])

    recorder = Recorder()
    content = Pieces([DATA[:7], DATA[7:13], DATA[13:]], Descriptor(size=SIZE))
    segmented = SegmentedBody(content, ContentRange(0, SIZE - 1, SIZE), open_range, 3, Clock(), PIECE)
    assert watch(segmented.deliver(recorder)) == [None]
    assert (recorder.data, asked) == (DATA, list(range(10, 100, 10)))


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["give", "send", "send", "break", "refuse", "pause", "resume", "wait"]),
        st.integers(0, 7),
        st.integers(1, 12),
    ),
    max_size=60,
)


@given(st.integers(2, 5), st.integers(0, 80), STEPS, st.booleans())
def test_segmented_bytes_are_right_or_cut_off(
    segments: int, first: int, steps: list[tuple[str, int, int]], cancelled: bool
) -> None:
    """However the parts come, break off and are refused, and whenever the consumer takes them.

    There are never more connections than were admitted, nor more bytes held than as many parts have.
    """
    fetch = Fetch(segments, first)
    troubled = False
    for step, which, count in steps:
        if fetch.outcome:
            break
        each = fetch.at_work[which % len(fetch.at_work)] if fetch.at_work else None
        match step:
            case "give" if each and each.pending:
                each.give()
            case "send" if each and not each.pending:
                each.send(count)
            case "break" if each and not each.pending:
                troubled = True
                each.feed.break_off()
            case "refuse" if each and each.pending:
                troubled = True
                each.refuse(TooManyRequests())
            case "pause" if not fetch.consumer.paused:
                fetch.consumer.pause()
            case "resume" if fetch.consumer.paused:
                fetch.consumer.resume()
            case "wait":
                fetch.clock.advance(count / 4)
        fetch.check()
    if cancelled:
        fetch.delivery.cancel()
    elif not fetch.outcome:
        if fetch.consumer.paused:
            fetch.consumer.resume()
        fetch.go_on()
    fetch.check()
    assert len(fetch.outcome) == 1
    assert fetch.outcome == [None] or troubled or cancelled
    assert (fetch.outcome == [None]) == (fetch.consumer.data == DATA[first:])
    assert (fetch.at_work, fetch.consumer.producer, fetch.clock.getDelayedCalls()) == ([], None, [])
