"""Bodies in memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from zope.interface.verify import verifyObject

from dockmirror.body.in_memory import PIECE, BytesBody, NoBody, PacedBytes, collect, json_body
from dockmirror.interfaces import IBody
from dockmirror.oci.descriptor import Descriptor
from dockmirror.oci.errors import RegistryError, Unavailable, Unreachable

from ..answering import Feed, Pieces, Recorder, now, watch
from ..values import CHUNKS


def test_json_has_a_type_and_a_size() -> None:
    """Clients insist on both."""
    content = json_body(b"{}")
    assert content.descriptor == Descriptor("application/json", None, 2)
    assert now(collect(content, 2)) == b"{}"


def test_an_absent_body_is_described() -> None:
    """A HEAD describes the body of a GET, and brings none."""
    content = NoBody(Descriptor("a/b", None, 5))
    recorder = Recorder()
    now(content.deliver(recorder))
    assert (content.descriptor.size, recorder.data) == (5, b"")


def test_bytes_are_not_logged() -> None:
    """The representation of a token's answer does not contain it."""
    assert "s3cret" not in repr(BytesBody(b"s3cret", Descriptor()))


@given(CHUNKS, st.integers(0, 60), st.booleans(), st.booleans())
def test_a_body_is_collected_up_to_a_limit(
    chunks: list[bytes], limit: int, at_once: bool, told: bool
) -> None:
    """All of it is returned, or the error is raised, never a beginning."""
    whole = b"".join(chunks)
    descriptor = Descriptor(size=len(whole) if told else None)
    feed = Feed(descriptor)
    outcome = watch(collect(Pieces(chunks, descriptor) if at_once else feed, limit))
    feed.send(*chunks)
    feed.end()
    if len(whole) <= limit:
        assert outcome == [whole]
    else:
        assert [type(error) for error in outcome] == [Unavailable]


def test_a_body_announced_as_too_large_is_not_read() -> None:
    """It is discarded before its first byte."""
    feed = Feed(Descriptor(size=3))
    with pytest.raises(Unavailable):
        now(collect(feed, 2))
    assert feed.state == "discarded"


def test_a_body_that_proves_too_large_is_cancelled() -> None:
    """The first byte beyond the limit cancels it."""
    feed = Feed(Descriptor(size=2))
    outcome = watch(collect(feed, 2))
    feed.send(b"ab")
    assert (outcome, feed.state) == ([], "open")
    feed.send(b"c")
    assert feed.state == "cancelled"
    assert [type(error) for error in outcome] == [Unavailable]


@pytest.mark.parametrize("error", [Unreachable("broken off"), Unavailable("corrupt")])
def test_a_failure_while_collecting_is_raised(error: RegistryError) -> None:
    """It is raised unchanged, even at the limit."""
    feed = Feed()
    outcome = watch(collect(feed, 1))
    feed.send(b"a")
    feed.break_off(error)
    assert outcome == [error]


def test_collecting_can_be_cancelled() -> None:
    """The body is released."""
    feed = Feed()
    collecting = Deferred.fromCoroutine(collect(feed, 10))
    outcome = watch(collecting)
    collecting.cancel()
    assert feed.state == "cancelled"
    assert [type(error) for error in outcome] == [CancelledError]


DATA = bytes(range(256)) * 1000


class Full(Recorder):
    """Takes one piece, and then nothing until it is resumed."""

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
    consumer = Full()
    outcome = watch(PacedBytes(DATA).deliver(consumer))
    for count in range(1, 5):
        assert (len(consumer.pieces), outcome) == (count, [])
        consumer.resume()
    assert (consumer.data, outcome, consumer.producer) == (DATA, [None], None)


def test_paced_bytes_stop_with_their_consumer() -> None:
    """Nothing is written after the consumer stops."""
    consumer = Full()
    outcome = watch(PacedBytes(DATA).deliver(consumer))
    consumer.leave()
    assert [type(each) for each in outcome] == [Unavailable]
    assert (consumer.data, consumer.producer) == (DATA[:PIECE], None)


def test_paced_bytes_stop_when_cancelled() -> None:
    """Nothing is written after a cancellation."""
    consumer = Full()
    delivery = PacedBytes(DATA).deliver(consumer)
    outcome = watch(delivery)
    delivery.cancel()
    assert [type(each) for each in outcome] == [CancelledError]
    assert (consumer.data, consumer.producer) == (DATA[:PIECE], None)
