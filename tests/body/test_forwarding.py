"""A consumer in front of another."""

from __future__ import annotations

from twisted.internet.interfaces import IConsumer
from zope.interface.verify import verifyObject

from dockmirror.body.forwarding import ForwardingConsumer

from ..answering import Feed, Recorder, watch


def test_everything_is_passed_on() -> None:
    """Bytes one way; pauses, and the producer itself, the other."""
    recorder, feed = Recorder(), Feed()
    assert verifyObject(IConsumer, ForwardingConsumer(recorder))
    outcome = watch(feed.deliver(ForwardingConsumer(recorder)))
    feed.send(b"a", b"b")
    recorder.pause()
    assert (recorder.pieces, feed.paused) == ([b"a", b"b"], True)
    feed.end()
    assert (outcome, recorder.producer) == ([None], None)
