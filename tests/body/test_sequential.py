"""Several contents to one consumer."""

from __future__ import annotations

from twisted.internet.interfaces import IConsumer, IPushProducer
from zope.interface.verify import verifyObject

from dockmirror.body.sequential import SequentialConsumer

from ..answering import Feed, Recorder


def test_the_consumer_sees_one_producer() -> None:
    """From the first content's beginning until it is said that nothing more comes."""
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


def test_its_pace_is_that_of_each() -> None:
    """Also of one that begins while it is paused."""
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


def test_nothing_begins_for_a_consumer_that_has_left() -> None:
    """What comes next is stopped at once."""
    recorder, first, second = Recorder(), Feed(), Feed()
    succession = SequentialConsumer(recorder)
    first.deliver(succession)
    first.end()
    recorder.leave()
    assert succession.stopped
    second.deliver(succession).addErrback(lambda _: None)
    assert second.state == "stopped"


def test_what_comes_at_once_needs_no_producer() -> None:
    """And there is none to be unregistered."""
    recorder = Recorder()
    succession = SequentialConsumer(recorder)
    succession.write(b"a")
    succession.finish()
    assert recorder.data == b"a"
