"""What ``IContent`` promises, held against everything that provides it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from dockmirror.content.capped import Capped
from dockmirror.content.copied import Copied
from dockmirror.content.doubted import Doubted
from dockmirror.content.held import BytesContent
from dockmirror.content.part import Part
from dockmirror.content.resumed import Resumed
from dockmirror.content.segmented import Segmented
from dockmirror.content.verified import Verified
from dockmirror.interfaces import IContent
from dockmirror.oci.descriptor import Descriptor
from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import RegistryError, Unavailable
from dockmirror.oci.ranges import ContentRange

from ..answering import Feed, Pieces, Recorder, now, watch

DATA = b"the content"
DESCRIPTOR = Descriptor("a/b", Digest.of(DATA), len(DATA))
ALL = ContentRange(0, len(DATA) - 1, len(DATA))


async def _no_more(*offsets: int) -> NoReturn:
    raise Unavailable("it cannot be had")


WRAPPED: dict[str, Callable[[Feed], IContent]] = {
    "as it comes": lambda feed: feed,
    "capped": lambda feed: Capped(feed, len(DATA)),
    "doubted": lambda feed: Doubted(feed, Digest.of(DATA), "something else"),
    "copied": lambda feed: Copied(feed, len(DATA), lambda _: None),
    "verified": lambda feed: Verified(feed, Digest.of(DATA)),
    "resumed": lambda feed: Resumed(feed, _no_more, Clock()),
    "a part": lambda feed: Part(feed, 0, len(DATA)),
    "a part to the end": lambda feed: Part(feed, 0),
    "resumed and verified": lambda feed: Verified(Resumed(feed, _no_more, Clock()), Digest.of(DATA)),
    "in segments": lambda feed: Segmented(feed, ALL, _no_more, 4, Clock(), 3),
    "resumed parts": lambda feed: Resumed(Part(feed, 0, len(DATA)), _no_more, Clock()),
}
HELD: dict[str, IContent] = {
    "bytes": BytesContent(DATA, DESCRIPTOR),
    "pieces": Pieces([DATA], DESCRIPTOR),
}
wrapped = pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)


@wrapped
def test_it_is_a_content(wrap: Callable[[Feed], IContent]) -> None:
    """It has what the interface names, and knows how large it will be."""
    content = wrap(Feed(DESCRIPTOR))
    assert verifyObject(IContent, content)
    assert (content.descriptor.media_type, content.descriptor.size) in (("a/b", len(DATA)), ("a/b", None))


@pytest.mark.parametrize("content", HELD.values(), ids=HELD)
def test_what_is_held_is_a_content_too(content: IContent) -> None:
    """All of it is written at once, and nothing is left registered."""
    assert verifyObject(IContent, content)
    recorder = Recorder()
    assert now(content.deliver(recorder)) is None
    assert (recorder.data, recorder.producer) == (DATA, None)


@wrapped
def test_it_fires_after_the_last_byte(wrap: Callable[[Feed], IContent]) -> None:
    """With None, when all is written and its producer is unregistered; not before."""
    feed, recorder = Feed(DESCRIPTOR), Recorder()
    outcome = watch(wrap(feed).deliver(recorder))
    feed.send(DATA[:4], b"", DATA[4:])
    assert (outcome, recorder.producer is None) == ([], False)
    feed.end()
    assert (outcome, recorder.data, recorder.producer) == ([None], DATA, None)
    assert feed.state == "whole"


@wrapped
def test_the_consumer_sets_the_pace(wrap: Callable[[Feed], IContent]) -> None:
    """Its pauses reach the source."""
    feed, recorder = Feed(DESCRIPTOR), Recorder()
    wrap(feed).deliver(recorder)
    recorder.pause()
    assert feed.paused
    recorder.resume()
    assert not feed.paused


@wrapped
def test_what_cannot_be_completed_fails(wrap: Callable[[Feed], IContent]) -> None:
    """With an error of the registry's; the producer is unregistered by then."""
    feed, recorder = Feed(DESCRIPTOR), Recorder()
    outcome = watch(wrap(feed).deliver(recorder))
    feed.send(DATA[:4])
    feed.break_off(Unavailable("no more"))
    assert [type(error) for error in outcome] == [Unavailable]
    assert recorder.producer is None
    assert DATA.startswith(recorder.data)


@wrapped
def test_cancelled_it_gives_back_what_it_held(wrap: Callable[[Feed], IContent]) -> None:
    """The source is left; what it still sends reaches nobody."""
    feed, recorder = Feed(DESCRIPTOR), Recorder()
    delivery = wrap(feed).deliver(recorder)
    outcome = watch(delivery)
    feed.send(DATA[:4])
    written = recorder.data
    delivery.cancel()
    feed.send(DATA[4:])
    assert [type(error) for error in outcome] == [CancelledError]
    assert (feed.state, recorder.producer, recorder.data) == ("cancelled", None, written)


@wrapped
def test_a_consumer_that_leaves_ends_it(wrap: Callable[[Feed], IContent]) -> None:
    """The source is told, and the delivery fails."""
    feed, recorder = Feed(DESCRIPTOR), Recorder()
    outcome = watch(wrap(feed).deliver(recorder))
    recorder.leave()
    assert isinstance(outcome[0], RegistryError)
    assert (feed.state, recorder.producer) == ("stopped", None)


@wrapped
def test_discarded_it_gives_back_what_it_holds(wrap: Callable[[Feed], IContent]) -> None:
    """Without a delivery."""
    feed = Feed(DESCRIPTOR)
    wrap(feed).discard()
    assert feed.state == "discarded"
