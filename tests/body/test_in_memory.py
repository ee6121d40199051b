"""Bodies in memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from zope.interface.verify import verifyObject

from dockmirror.archive.exporter import PIECE, PacedBytes
from dockmirror.body.bodies import BytesBody, NoBody, collect, json_body
from dockmirror.interfaces import IBody
from dockmirror.oci.digest import Descriptor
from dockmirror.oci.errors import RegistryError, Unavailable, Unreachable

from ..answering import Feed, Pieces, Recorder, now, watch
from ..values import CHUNKS


def test_a_body_of_bytes_is_described() -> None:
    """JSON has a type and a size; a HEAD describes the body of a GET; a token does not show in ``repr``."""
    assert json_body(b"{}").descriptor == Descriptor("application/json", None, 2)
    assert now(collect(json_body(b"{}"), 2)) == b"{}"
    assert NoBody(Descriptor("a/b", None, 5)).descriptor.size == 5
    assert now(collect(NoBody(Descriptor("a/b", None, 5)), 5)) == b""
    assert "s3cret" not in repr(BytesBody(b"s3cret", Descriptor()))


@given(CHUNKS, st.integers(0, 60), st.booleans(), st.booleans())
def test_a_body_is_collected_up_to_a_limit(
    chunks: list[bytes], limit: int, at_once: bool, is_size_known: bool
) -> None:
    """All of it is returned, or the error is raised, never a beginning."""
    data = b"".join(chunks)
    descriptor = Descriptor(size=len(data) if is_size_known else None)
    feed = Feed(descriptor)
    outcome = watch(collect(Pieces(chunks, descriptor) if at_once else feed, limit))
    feed.send(*chunks)
    feed.end()
    if len(data) <= limit:
        assert outcome == [data]
    else:
        assert [type(error) for error in outcome] == [Unavailable]


def test_a_body_that_is_too_large_is_released() -> None:
    """Before its first byte if it announces its size, and else at the first byte beyond the limit."""
    feed = Feed(Descriptor(size=3))
    with pytest.raises(Unavailable):
        now(collect(feed, 2))
    assert feed.state == "discarded"
    feed = Feed(Descriptor(size=2))
    outcome = watch(collect(feed, 2))
    feed.send(b"ab")
    assert not outcome
    feed.send(b"c")
    assert feed.state == "cancelled"
    assert [type(error) for error in outcome] == [Unavailable]


@pytest.mark.parametrize("error", [Unreachable("broken off"), Unavailable("corrupt"), None])
def test_a_failure_while_collecting_is_raised(error: RegistryError | None) -> None:
    """It is raised unchanged, even at the limit; cancelling releases the body."""
    feed = Feed()
    collecting = Deferred.fromCoroutine(collect(feed, 1))
    outcome = watch(collecting)
    feed.send(b"a")
    feed.break_off(error) if error else collecting.cancel()
    assert feed.state == ("broken" if error else "cancelled")
    assert outcome == [error] or isinstance(outcome[0], CancelledError)


DATA = bytes(range(256)) * 1000


class SlowRecorder(Recorder):
    """A consumer that pauses after each piece."""

    def write(self, data: bytes) -> None:
        super().write(data)
        self.pause()


@pytest.mark.parametrize("size", [0, 1, PIECE, PIECE + 1, len(DATA)])
def test_paced_bytes_are_written_at_once_to_a_fast_consumer(size: int) -> None:
    """A consumer that takes everything gets everything."""
    content, recorder = PacedBytes(DATA[:size]), Recorder()
    assert verifyObject(IBody, content)
    assert watch(content.deliver(recorder)) == [None]
    assert (recorder.data, recorder.producer, content.descriptor.size) == (DATA[:size], None, size)


def test_paced_bytes_follow_back_pressure() -> None:
    """The delivery ends when the consumer would take more."""
    consumer = SlowRecorder()
    outcome = watch(PacedBytes(DATA).deliver(consumer))
    for count in range(1, 5):
        assert (len(consumer.pieces), outcome) == (count, [])
        consumer.resume()
    assert (consumer.data, outcome, consumer.producer) == (DATA, [None], None)


@pytest.mark.parametrize("error", [Unavailable, CancelledError])
def test_paced_bytes_stop_with_their_consumer(error: type[Exception]) -> None:
    """Nothing is written after the consumer stops, or after a cancellation."""
    consumer = SlowRecorder()
    delivery = PacedBytes(DATA).deliver(consumer)
    outcome = watch(delivery)
    consumer.leave() if error is Unavailable else delivery.cancel()
    assert [type(each) for each in outcome] == [error]
    assert (consumer.data, consumer.producer) == (DATA[:PIECE], None)


def test_bytes_in_memory_are_not_copied() -> None:
    """They have the same limit, also if their size is not stated."""
    data = b"abc" * 100
    assert now(collect(BytesBody(data, Descriptor()), len(data))) is data
    with pytest.raises(Unavailable):
        now(collect(BytesBody(data, Descriptor()), len(data) - 1))
