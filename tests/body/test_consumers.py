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


class OnePiece(EarlyStopConsumer):
    """A consumer of one piece."""

    def forward_piece(self, data: bytes) -> None:
        self.satisfied = True
        self.consumer.write(data)


def test_a_satisfied_consumer_cancels_the_delivery() -> None:
    """Nothing more is passed on, even by a body that cannot be cancelled any more."""
    feed, recorder = Feed(), Recorder()
    outcome = watch(OnePiece(recorder).forward(feed))
    feed.send(b"a", b"b")
    assert [type(each) for each in outcome] == [CancelledError]
    assert (feed.state, recorder.data) == ("cancelled", b"a")
    recorder = Recorder()
    assert watch(OnePiece(recorder).forward(Pieces([b"a", b"b"]))) == [None]
    assert recorder.data == b"a"


class Producer(StringTransport):
    """A producer that keeps its state; it begins by producing."""

    def stopProducing(self) -> None:
        self.producerState = "stopped"


def test_a_switch_passes_back_pressure_to_its_producer() -> None:
    """It reaches the current producer and the next one, and not one that has ended."""
    switch, producers = ProducerSwitch(), [Producer(), Producer(), Producer()]
    assert verifyObject(IPushProducer, switch)
    switch.begin(producers[0])
    for step, state in ((switch.pauseProducing, "paused"), (switch.resumeProducing, "producing")):
        step()
        assert producers[0].producerState == state
    switch.end()
    switch.pauseProducing()
    switch.begin(producers[1])
    assert producers[1].producerState == "paused"
    switch.stopProducing()
    switch.begin(producers[2])
    assert [each.producerState for each in producers] == ["producing", "stopped", "stopped"]


def test_a_sequence_of_bodies_is_one_producer() -> None:
    """It is registered from the first body's start until ``finish``; bytes in memory need none."""
    recorder = Recorder()
    sequence = SequentialConsumer(recorder)
    assert verifyObject(IConsumer, sequence)
    sequence.write(b"a")
    assert recorder.producer is None
    sequence.finish()
    producers: set[object] = set()
    for data in (b"b", b"c"):
        feed = Feed()
        feed.deliver(sequence)
        feed.send(data)
        feed.end()
        producers.add(recorder.producer)
    (producer,) = producers
    assert verifyObject(IPushProducer, producer)
    sequence.finish()
    assert (recorder.data, sequence.count, recorder.producer) == (b"abc", 3, None)


def test_back_pressure_holds_for_each_body() -> None:
    """A body that begins during a pause waits; one that begins after the consumer has gone is stopped."""
    recorder, feeds = Recorder(), [Feed(), Feed(), Feed()]
    sequence = SequentialConsumer(recorder)
    feeds[0].deliver(sequence)
    recorder.pause()
    assert feeds[0].paused
    feeds[0].end()
    feeds[1].deliver(sequence)
    assert feeds[1].paused
    recorder.resume()
    assert not feeds[1].paused
    feeds[1].end()
    recorder.leave()
    assert sequence.stopped
    feeds[2].deliver(sequence).addErrback(lambda _: None)
    assert feeds[2].state == "stopped"
