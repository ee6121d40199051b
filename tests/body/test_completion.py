"""A body that reports when it was delivered whole."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from zope.interface.verify import verifyObject

from dockmirror.body.wrappers import CompletionObserver
from dockmirror.interfaces import IBody
from dockmirror.oci.descriptor import Descriptor
from dockmirror.oci.errors import Unreachable

from ..answering import Feed, Pieces, Recorder, watch


class Completions:
    """Counts what is reported."""

    def __init__(self) -> None:
        self.count = 0

    async def __call__(self) -> None:
        """Counts one more."""
        self.count += 1


def test_it_reports_after_the_last_byte() -> None:
    """All bytes have been written by then."""
    completions, recorder = Completions(), Recorder()
    content = CompletionObserver(Pieces([b"a", b"b"], Descriptor(size=2)), completions)
    assert verifyObject(IBody, content)
    assert watch(content.deliver(recorder)) == [None]
    assert (recorder.data, completions.count) == (b"ab", 1)


def test_a_failure_is_not_reported() -> None:
    """It is passed on."""
    completions = Completions()
    content = CompletionObserver(Pieces([b"a"], Descriptor(size=2), Unreachable()), completions)
    (failed,) = watch(content.deliver(Recorder()))
    assert isinstance(failed, Unreachable)
    assert completions.count == 0


def test_a_delivery_that_is_left_is_not_reported() -> None:
    """Neither is a content that nobody wants."""
    completions, feed = Completions(), Feed(Descriptor(size=2))
    delivery = CompletionObserver(feed, completions).deliver(Recorder())
    outcome = watch(delivery)
    delivery.cancel()
    assert [type(each) for each in outcome] == [CancelledError]
    unwanted = Feed(Descriptor(size=2))
    CompletionObserver(unwanted, completions).discard()
    assert (unwanted.state, completions.count) == ("discarded", 0)
