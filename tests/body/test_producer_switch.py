"""The pace that a consumer sets."""

from __future__ import annotations

from twisted.internet.interfaces import IPushProducer
from twisted.internet.testing import StringTransport
from zope.interface.verify import verifyObject

from dockmirror.body.producer_switch import ProducerSwitch


class Producer(StringTransport):
    """Notes what it was told; begins by producing."""

    def stopProducing(self) -> None:
        """See ``IPushProducer``."""
        self.producerState = "stopped"


def test_it_is_told() -> None:
    """To the producer that there is."""
    pace, producer = ProducerSwitch(), Producer()
    assert verifyObject(IPushProducer, pace)
    pace.begin(producer)
    for tell, state in (
        (pace.pauseProducing, "paused"), (pace.resumeProducing, "producing"), (pace.stopProducing, "stopped"),
    ):  # fmt: skip
        tell()
        assert producer.producerState == state


def test_it_is_kept() -> None:
    """For one that comes later; one that has ended is not told any more."""
    pace, first, second, third = ProducerSwitch(), Producer(), Producer(), Producer()
    pace.begin(first)
    pace.end()
    pace.pauseProducing()
    pace.begin(second)
    pace.end()
    pace.stopProducing()
    pace.begin(third)
    assert [each.producerState for each in (first, second, third)] == ["producing", "paused", "stopped"]
