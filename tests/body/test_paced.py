"""Bytes that are held in memory, written at the pace of their consumer."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError
from zope.interface.verify import verifyObject

from dockmirror.body.paced import PIECE, PacedBytes
from dockmirror.interfaces import IBody
from dockmirror.oci.errors import Unavailable

from ..answering import Recorder, watch

DATA = bytes(range(256)) * 1000


class Full(Recorder):
    """Takes one piece, and then nothing until it is resumed."""

    def write(self, data: bytes) -> None:
        """See ``IConsumer``."""
        super().write(data)
        self.pause()


@pytest.mark.parametrize("size", [0, 1, PIECE, PIECE + 1, len(DATA)])
def test_all_at_once(size: int) -> None:
    """Where the consumer takes all."""
    content, recorder = PacedBytes(DATA[:size]), Recorder()
    assert verifyObject(IBody, content)
    assert watch(content.deliver(recorder)) == [None]
    assert (recorder.data, recorder.producer, content.descriptor.size) == (DATA[:size], None, size)


def test_piece_by_piece() -> None:
    """As the consumer takes them; it is delivered when the consumer would take more."""
    consumer = Full()
    outcome = watch(PacedBytes(DATA).deliver(consumer))
    for count in range(1, 5):
        assert (len(consumer.pieces), outcome) == (count, [])
        consumer.resume()
    assert (consumer.data, outcome, consumer.producer) == (DATA, [None], None)


def test_a_consumer_that_leaves() -> None:
    """Is given nothing more."""
    consumer = Full()
    outcome = watch(PacedBytes(DATA).deliver(consumer))
    consumer.leave()
    assert [type(each) for each in outcome] == [Unavailable]
    assert (consumer.data, consumer.producer) == (DATA[:PIECE], None)


def test_a_delivery_that_is_cancelled() -> None:
    """Writes nothing more."""
    consumer = Full()
    delivery = PacedBytes(DATA).deliver(consumer)
    outcome = watch(delivery)
    delivery.cancel()
    assert [type(each) for each in outcome] == [CancelledError]
    assert (consumer.data, consumer.producer) == (DATA[:PIECE], None)
