"""Bodies that are fetched over several connections at once."""

from __future__ import annotations

import pytest
from attrs import Factory, define, field
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from dockmirror.body.bodies import PAUSES
from dockmirror.body.segmented import SegmentedBody
from dockmirror.interfaces import IBody
from dockmirror.middleware.blob_fetch import FixedSegments
from dockmirror.oci.digest import Descriptor
from dockmirror.oci.errors import Denied, RegistryError, TooManyRequests, Unavailable, Unreachable
from dockmirror.oci.header_fields import ContentRange

from ..answering import Feed, Pieces, Recorder, watch

SIZE = 100
PIECE = 10
DATA = bytes(range(SIZE))


@define(eq=False)
class Connection:
    """A request for a part, and its response.

    :ivar answer: fires with the part.
    :ivar position: the offset of the next byte to send.
    """

    first: int
    last: int
    answer: Deferred[IBody] = field(factory=Deferred)
    feed: Feed = field(factory=Feed)
    position: int = field(default=Factory(lambda self: self.first, takes_self=True))

    @property
    def is_pending(self) -> bool:
        return not self.answer.called

    @property
    def is_busy(self) -> bool:
        return self.is_pending or self.feed.state == "open"

    def respond(self) -> None:
        self.answer.callback(self.feed)

    def refuse(self, error: RegistryError) -> None:
        self.answer.errback(error)

    def send(self, count: int = SIZE) -> None:
        """Send some bytes, if it is not paused, and the end after the last."""
        if self.feed.state == "open" and not self.feed.paused:
            piece = DATA[self.position : min(self.position + count, self.last + 1)]
            self.position += len(piece)
            self.feed.send(piece)
            if self.position > self.last:
                self.feed.end()


class StrictRecorder(Recorder):
    """A consumer that is written nothing while it is paused."""

    paused = False

    def write(self, data: bytes) -> None:
        assert not self.paused
        super().write(data)

    def pause(self) -> None:
        self.paused = True
        super().pause()

    def resume(self) -> None:
        self.paused = False
        super().resume()


class Fetch:
    """A segmented body on its way to a consumer.

    :ivar lead: the connection of the leading body.
    """

    def __init__(self, segments: int = 4, first: int = 0, size: int = SIZE) -> None:
        self.clock = Clock()
        self.consumer = StrictRecorder()
        self.segments = segments
        self.lead = Connection(first, size - 1)
        self.lead.respond()
        self.parts: list[Connection] = []
        part = ContentRange(first, size - 1, size)
        self.line = FixedSegments(segments)
        content = SegmentedBody(self.lead.feed, part, self._open, self.line, self.clock, PIECE)
        self.delivery = content.deliver(self.consumer)
        self.outcome = watch(self.delivery)

    def _open(self, first: int, last: int) -> Deferred[IBody]:
        self.parts.append(Connection(first, last))
        return self.parts[-1].answer

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """The parts that were requested."""
        return [(part.first, part.last) for part in self.parts]

    @property
    def busy(self) -> list[Connection]:
        """The connections that are open now."""
        return [each for each in (self.lead, *self.parts) if each.is_busy]

    @property
    def buffered(self) -> int:
        """The number of bytes that arrived and were not written."""
        received = sum(part.position - part.first for part in self.parts)
        begun = [part.first for part in self.parts if part.answer.called and part.feed.state != "kept"]
        led = min(begun, default=SIZE) if self.lead.feed.state == "cancelled" else self.lead.position
        return received - (self.lead.first + len(self.consumer.data) - led)

    def finish(self) -> None:
        """Respond and send until all has arrived."""
        for _ in range(100):
            while pending := [each for each in self.busy if each.is_pending]:
                pending[0].respond()
            for each in self.busy:
                each.send()
            self.clock.advance(max(PAUSES))

    def assert_complete(self, first: int = 0, size: int = SIZE) -> None:
        self.finish()
        assert (self.outcome, self.consumer.data) == ([None], DATA[first:size])

    def assert_released(self) -> None:
        """Expect that no connection, producer or timer is left."""
        assert (self.busy, self.consumer.producer, self.clock.getDelayedCalls()) == ([], None, [])

    def check_limits(self) -> None:
        """Check the limits that hold at any time."""
        assert DATA[self.lead.first :].startswith(self.consumer.data)
        assert len(self.busy) <= self.segments
        if not self.outcome:
            assert 0 <= self.buffered <= self.segments * PIECE


@pytest.fixture
def fetch() -> Fetch:
    """Return one whose first segment has a response."""
    fetch = Fetch()
    fetch.parts[0].respond()
    return fetch


def test_segments_are_fetched_ahead() -> None:
    """The first one shows that ranges are served; then all connections are used."""
    fetch = Fetch()
    assert fetch.ranges == [(10, 19)]
    fetch.parts[0].respond()
    assert fetch.ranges == [(10, 19), (20, 29), (30, 39)]
    fetch.lead.send(10)
    assert (fetch.lead.feed.state, fetch.ranges[3:]) == ("cancelled", [(40, 49)])
    fetch.finish()
    assert (fetch.outcome, fetch.consumer.data, fetch.consumer.producer) == ([None], DATA, None)
    assert fetch.ranges == [(first, first + 9) for first in range(10, 100, 10)]


def test_early_segments_wait_for_their_turn(fetch: Fetch) -> None:
    """Bytes are written in order; those at the front as they arrive."""
    for part in fetch.parts[1:]:
        part.respond()
        part.send()
    fetch.parts[0].send(3)
    assert (fetch.consumer.data, fetch.buffered) == (b"", 23)
    fetch.lead.send(10)
    assert (fetch.consumer.data, fetch.buffered) == (DATA[:13], 20)
    fetch.parts[0].send(1)
    assert fetch.consumer.data == DATA[:14]
    fetch.parts[0].send()
    assert fetch.consumer.data == DATA[:40]


def test_the_rest_of_a_body_is_segmented() -> None:
    """It starts where the body broke off; its last segment may be short."""
    fetch = Fetch(first=33, size=95)
    fetch.assert_complete(33, 95)
    assert fetch.ranges[0] == (43, 52)
    assert fetch.ranges[-1] == (93, 94)


@pytest.mark.parametrize("error", [Unavailable("the whole"), TooManyRequests(), Unreachable(), None])
def test_without_ranges_one_connection_goes_on(error: RegistryError | None) -> None:
    """It goes on to the end, nothing more is fetched, and a segment that has not arrived is dropped."""
    fetch = Fetch()
    if error is not None:
        fetch.parts[0].refuse(error)
    fetch.lead.send()
    assert (fetch.outcome, fetch.consumer.data, fetch.busy) == ([None], DATA, [])
    assert len(fetch.parts) == 1


def test_a_late_segment_is_skipped() -> None:
    """The leading body goes on, and a later segment is fetched."""
    fetch = Fetch()
    fetch.lead.send(12)
    assert fetch.consumer.data == DATA[:12]
    assert fetch.ranges == [(10, 19), (32, 41)]
    assert fetch.busy == [fetch.lead, fetch.parts[1]]
    fetch.lead.send(20)
    assert fetch.ranges[2:] == [(72, 81)]
    fetch.assert_complete()


def test_a_refused_segment_costs_a_connection(fetch: Fetch) -> None:
    """It is fetched again when its turn comes."""
    for part in fetch.parts[1:]:
        part.refuse(TooManyRequests())
    fetch.lead.send(10)
    fetch.parts[0].send()
    assert fetch.ranges[3:] == [(20, 29)]
    fetch.parts[3].respond()
    fetch.parts[3].send()
    assert fetch.ranges[4:] == [(40, 49), (30, 39)]
    fetch.assert_complete()


def test_connections_are_added_once_they_are_of_use() -> None:
    """A body that began with one connection goes on with several."""
    fetch = Fetch(segments=1)
    fetch.lead.send(25)
    assert fetch.ranges == []
    fetch.line.number = 3
    fetch.lead.send(5)
    assert fetch.ranges == [(40, 49)]
    fetch.parts[0].respond()
    assert fetch.ranges == [(40, 49), (50, 59)]
    fetch.assert_complete()


def test_the_last_connection_fetches_the_rest() -> None:
    """If only one is admitted, it fetches all that is left."""
    fetch = Fetch(segments=2)
    fetch.parts[0].respond()
    fetch.lead.send(10)
    assert fetch.ranges[1:] == [(20, 29)]
    fetch.parts[1].refuse(TooManyRequests())
    fetch.parts[0].send()
    fetch.parts[2].respond()
    fetch.parts[2].send()
    assert fetch.ranges[2:] == [(20, 29), (30, 99)]


@pytest.mark.parametrize("error", [Denied("no more"), Unavailable(), Unreachable("gone")])
def test_a_segment_refused_in_its_turn_breaks_the_body_off(error: RegistryError) -> None:
    """The body fails as if the upstream had broken off."""
    fetch = Fetch(segments=2)
    fetch.parts[0].respond()
    fetch.parts[0].send(5)
    fetch.parts[0].feed.break_off(Unavailable())
    fetch.lead.send(10)
    fetch.parts[1].refuse(error)
    assert [type(each) for each in fetch.outcome] == [Unreachable]
    assert (fetch.consumer.data, fetch.consumer.producer, fetch.busy) == (DATA[:15], None, [])


def test_a_segment_that_breaks_off_is_resumed(fetch: Fetch) -> None:
    """It is resumed before its turn and in it; after its last byte nothing is left to fetch."""
    fetch.parts[0].send(4)
    fetch.parts[0].feed.break_off()
    fetch.clock.advance(0)
    assert fetch.ranges[3:] == [(14, 19)]
    fetch.lead.send(10)
    fetch.parts[3].respond()
    fetch.parts[3].send(3)
    fetch.parts[3].feed.break_off()
    fetch.clock.advance(PAUSES[1])
    assert fetch.ranges[-1] == (17, 19)
    fetch.parts[-1].respond()
    fetch.parts[-1].feed.send(DATA[17:20])
    fetch.parts[-1].feed.break_off()
    fetch.clock.advance(max(PAUSES))
    assert fetch.consumer.data == DATA[:20]
    fetch.assert_complete()


def test_segments_ahead_ignore_back_pressure(fetch: Fetch) -> None:
    """Their connections are released; only the front waits, in whose turn a pause holds."""
    fetch.lead.send(10)
    fetch.parts[0].send(1)
    fetch.consumer.pause()
    assert fetch.parts[0].feed.paused
    for part in fetch.parts[1:]:
        part.respond()
        part.send()
    assert fetch.busy == [fetch.parts[0]]
    assert len(fetch.parts) == 4
    fetch.consumer.resume()
    assert not fetch.parts[0].feed.paused
    fetch.parts[0].send()
    assert fetch.consumer.data == DATA[:50]
    fetch.consumer.pause()
    fetch.parts[4].respond()
    assert fetch.parts[4].feed.paused
    fetch.consumer.resume()
    assert not fetch.parts[4].feed.paused


def test_buffered_pieces_follow_back_pressure(fetch: Fetch) -> None:
    """They are written one by one to a consumer that takes one at a time."""
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


@pytest.mark.parametrize("error", [CancelledError, Unreachable])
@pytest.mark.parametrize("sent", [5, 10])
def test_a_segmented_body_releases_all_connections(fetch: Fetch, error: type[Exception], sent: int) -> None:
    """Whichever segment is at the front, answered or not, if it is cancelled or its consumer leaves."""
    fetch.parts[1].respond()
    fetch.lead.send(sent)
    fetch.delivery.cancel() if error is CancelledError else fetch.consumer.leave()
    fetch.clock.advance(max(PAUSES))
    assert [type(each) for each in fetch.outcome] == [error]
    fetch.assert_released()


def test_a_consumer_may_stop_while_a_segment_is_opened(fetch: Fetch) -> None:
    """The segment is released when it arrives."""
    fetch.lead.send(10)
    fetch.parts[0].send()
    fetch.consumer.leave()
    fetch.parts[1].respond()
    assert fetch.parts[1].feed.state == "stopped"
    assert [type(each) for each in fetch.outcome] == [Unreachable]
    assert fetch.busy == []


def test_bodies_written_at_once_are_cut_too() -> None:
    """Segments that have arrived already follow the leading body."""
    offsets: list[int] = []

    async def open_range(first: int, last: int) -> IBody:
        offsets.append(first)
        return Pieces([DATA[first : last + 1]])

    recorder = Recorder()
    content = Pieces([DATA[:7], DATA[7:13], DATA[13:]], Descriptor(size=SIZE))
    segmented = SegmentedBody(
        content, ContentRange(0, SIZE - 1, SIZE), open_range, FixedSegments(3), Clock(), PIECE
    )
    assert watch(segmented.deliver(recorder)) == [None]
    assert (recorder.data, offsets) == (DATA, list(range(10, 100, 10)))


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["respond", "send", "send", "break", "refuse", "pause", "resume", "wait"]),
        st.integers(0, 7),
        st.integers(1, 12),
    ),
    max_size=60,
)


@given(st.integers(2, 5), st.integers(0, 80), STEPS, st.booleans())
def test_segmented_bytes_are_right_or_cut_off(
    segments: int, first: int, steps: list[tuple[str, int, int]], cancelled: bool
) -> None:
    """However the parts come, break off and are refused, and whenever the consumer pauses."""
    fetch = Fetch(segments, first)
    has_failures = False
    for step, index, count in steps:
        if fetch.outcome:
            break
        each = fetch.busy[index % len(fetch.busy)] if fetch.busy else None
        match step:
            case "respond" if each and each.is_pending:
                each.respond()
            case "send" if each and not each.is_pending:
                each.send(count)
            case "break" if each and not each.is_pending:
                has_failures = True
                each.feed.break_off()
            case "refuse" if each and each.is_pending:
                has_failures = True
                each.refuse(TooManyRequests())
            case "pause" if not fetch.consumer.paused:
                fetch.consumer.pause()
            case "resume" if fetch.consumer.paused:
                fetch.consumer.resume()
            case "wait":
                fetch.clock.advance(count / 4)
        fetch.check_limits()
    if cancelled:
        fetch.delivery.cancel()
    elif not fetch.outcome:
        if fetch.consumer.paused:
            fetch.consumer.resume()
        fetch.finish()
    fetch.check_limits()
    assert len(fetch.outcome) == 1
    assert fetch.outcome == [None] or has_failures or cancelled
    assert (fetch.outcome == [None]) == (fetch.consumer.data == DATA[first:])
    fetch.assert_released()
