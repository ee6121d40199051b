"""Consumers between a body and its consumer."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.internet.testing import StringTransport
from zope.interface.verify import verifyObject

from dockmirror.body.consumers import (
    EarlyStopConsumer,
    ForwardingConsumer,
    ProducerSwitch,
    SequentialConsumer,
)

from ..answering import Feed, Pieces, Recorder, watch


def test_a_forwarding_consumer_passes_everything_on() -> None:
    """Bytes go to the consumer, back-pressure and the producer itself to the other side."""
    recorder, feed = Recorder(), Feed()
    assert verifyObject(IConsumer, ForwardingConsumer(recorder))
    outcome = watch(feed.deliver(ForwardingConsumer(recorder)))
    feed.send(b"a", b"b")
    recorder.pause()
    assert (recorder.pieces, feed.paused) == ([b"a", b"b"], True)
    feed.end()
    assert (outcome, recorder.producer) == ([None], None)


class One(EarlyStopConsumer):
    """Wants one piece."""

    def forward_piece(self, data: bytes) -> None:
        """Passes it on."""
        self.satisfied = True
        self.consumer.write(data)


def test_a_satisfied_consumer_cancels_the_delivery() -> None:
    """What arrives later is not passed on."""
    feed, recorder = Feed(), Recorder()
    outcome = watch(One(recorder).forward(feed))
    feed.send(b"a", b"b")
    assert [type(each) for each in outcome] == [CancelledError]
    assert (feed.state, recorder.data) == ("cancelled", b"a")


def test_a_body_written_at_once_is_complete() -> None:
    """It cannot be cancelled any more, but nothing that is unwanted is passed on."""
    recorder = Recorder()
    assert watch(One(recorder).forward(Pieces([b"a", b"b"]))) == [None]
    assert recorder.data == b"a"


class Producer(StringTransport):
    """Notes what it was told; begins by producing."""

    def stopProducing(self) -> None:
        self.producerState = "stopped"


def test_a_switch_passes_back_pressure_to_its_producer() -> None:
    """Pauses, resumptions and stops reach the current producer."""
    pace, producer = ProducerSwitch(), Producer()
    assert verifyObject(IPushProducer, pace)
    pace.begin(producer)
    for tell, state in (
        (pace.pauseProducing, "paused"), (pace.resumeProducing, "producing"), (pace.stopProducing, "stopped"),
    ):  # fmt: skip
        tell()
        assert producer.producerState == state


def test_a_switch_applies_a_pause_to_the_next_producer() -> None:
    """A producer that has ended hears nothing more."""
    pace, first, second, third = ProducerSwitch(), Producer(), Producer(), Producer()
    pace.begin(first)
    pace.end()
    pace.pauseProducing()
    pace.begin(second)
    pace.end()
    pace.stopProducing()
    pace.begin(third)
    assert [each.producerState for each in (first, second, third)] == ["producing", "paused", "stopped"]


def test_a_sequence_of_bodies_is_one_producer() -> None:
    """It is registered from the first body's start until ``finish``."""
    recorder = Recorder()
    succession = SequentialConsumer(recorder)
    assert verifyObject(IConsumer, succession)
    assert recorder.producer is None
    seen: set[object] = set()
    for data in (b"ab", b"c"):
        feed = Feed()
        feed.deliver(succession)
        feed.send(data)
        feed.end()
        seen.add(recorder.producer)
    (producer,) = seen
    assert verifyObject(IPushProducer, producer)
    succession.finish()
    assert (recorder.data, succession.count, recorder.producer) == (b"abc", 3, None)


def test_back_pressure_holds_for_each_body() -> None:
    """A body that begins during a pause waits, too."""
    recorder, first, second = Recorder(), Feed(), Feed()
    succession = SequentialConsumer(recorder)
    first.deliver(succession)
    recorder.pause()
    assert first.paused
    first.end()
    second.deliver(succession)
    assert second.paused
    recorder.resume()
    assert not second.paused


def test_no_body_begins_after_the_consumer_has_gone() -> None:
    """The next producer is stopped at once."""
    recorder, first, second = Recorder(), Feed(), Feed()
    succession = SequentialConsumer(recorder)
    first.deliver(succession)
    first.end()
    recorder.leave()
    assert succession.stopped
    second.deliver(succession).addErrback(lambda _: None)
    assert second.state == "stopped"


def test_bodies_written_at_once_need_no_producer() -> None:
    """None is registered, so none is unregistered."""
    recorder = Recorder()
    succession = SequentialConsumer(recorder)
    succession.write(b"a")
    succession.finish()
    assert recorder.data == b"a"
