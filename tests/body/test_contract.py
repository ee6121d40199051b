"""The contract of ``IBody``, for everything that provides it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from dockmirror.body.bodies import (
    BytesBody,
    ErrorPageGuardBody,
    ResumingBody,
    SizeLimitedBody,
    Slice,
    Tee,
    VerifiedBody,
)
from dockmirror.body.segmented import SegmentedBody
from dockmirror.interfaces import IBody
from dockmirror.middleware.blob_fetch import FixedSegments
from dockmirror.oci.digest import Descriptor, Digest
from dockmirror.oci.errors import RegistryError, Unavailable
from dockmirror.oci.header_fields import ContentRange

from ..answering import Feed, Pieces, Recorder, now, watch

DATA = b"the content"
DESCRIPTOR = Descriptor("a/b", Digest.of(DATA), len(DATA))
ALL = ContentRange(0, len(DATA) - 1, len(DATA))


async def _refuse(*offsets: int) -> NoReturn:
    raise Unavailable("no more")


WRAPPED: dict[str, Callable[[Feed], IBody]] = {
    "plain": lambda feed: feed,
    "limited": lambda feed: SizeLimitedBody(feed, len(DATA)),
    "guarded": lambda feed: ErrorPageGuardBody(feed, Digest.of(DATA), "something else"),
    "copied": lambda feed: Tee(feed, len(DATA), lambda _: None),
    "verified": lambda feed: VerifiedBody(feed, Digest.of(DATA)),
    "resumed": lambda feed: ResumingBody(feed, _refuse, Clock()),
    "slice": lambda feed: Slice(feed, 0, len(DATA)),
    "slice to the end": lambda feed: Slice(feed, 0),
    "resumed and verified": lambda feed: VerifiedBody(ResumingBody(feed, _refuse, Clock()), Digest.of(DATA)),
    "segmented": lambda feed: SegmentedBody(feed, ALL, _refuse, FixedSegments(4), Clock(), 3),
    "resumed slice": lambda feed: ResumingBody(Slice(feed, 0, len(DATA)), _refuse, Clock()),
}
IN_MEMORY: dict[str, IBody] = {
    "bytes": BytesBody(DATA, DESCRIPTOR),
    "pieces": Pieces([DATA], DESCRIPTOR),
}
wrapped = pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)


@pytest.mark.parametrize("content", IN_MEMORY.values(), ids=IN_MEMORY)
def test_bytes_in_memory_are_a_body(content: IBody) -> None:
    """They are written at once, and no producer stays registered."""
    assert verifyObject(IBody, content)
    recorder = Recorder()
    assert now(content.deliver(recorder)) is None
    assert (recorder.data, recorder.producer) == (DATA, None)


@wrapped
def test_a_delivery_fires_after_the_last_byte(wrap: Callable[[Feed], IBody]) -> None:
    """Back-pressure reaches the source meanwhile; in the end the producer is unregistered."""
    feed, recorder = Feed(DESCRIPTOR), Recorder()
    body = wrap(feed)
    assert verifyObject(IBody, body)
    assert (body.descriptor.media_type, body.descriptor.size) in (("a/b", len(DATA)), ("a/b", None))
    outcome = watch(body.deliver(recorder))
    recorder.pause()
    assert feed.paused
    recorder.resume()
    assert not feed.paused
    feed.send(DATA[:4], b"", DATA[4:])
    assert (outcome, recorder.producer is None) == ([], False)
    feed.end()
    assert (outcome, recorder.data, recorder.producer) == ([None], DATA, None)
    assert feed.state == "whole"


@wrapped
def test_an_incomplete_body_fails(wrap: Callable[[Feed], IBody]) -> None:
    """It fails with a ``RegistryError`` after the producer is unregistered."""
    feed, recorder = Feed(DESCRIPTOR), Recorder()
    outcome = watch(wrap(feed).deliver(recorder))
    feed.send(DATA[:4])
    feed.break_off(Unavailable("no more"))
    assert [type(error) for error in outcome] == [Unavailable]
    assert recorder.producer is None
    assert DATA.startswith(recorder.data)


@wrapped
def test_a_cancelled_delivery_releases_its_source(wrap: Callable[[Feed], IBody]) -> None:
    """The source is cancelled, and what it still sends is dropped."""
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
def test_a_consumer_that_stops_ends_the_delivery(wrap: Callable[[Feed], IBody]) -> None:
    """The source is stopped, and the delivery fails; the source of a discarded body is discarded."""
    feed, recorder = Feed(DESCRIPTOR), Recorder()
    outcome = watch(wrap(feed).deliver(recorder))
    recorder.leave()
    assert isinstance(outcome[0], RegistryError)
    assert (feed.state, recorder.producer) == ("stopped", None)
    feed = Feed(DESCRIPTOR)
    wrap(feed).discard()
    assert feed.state == "discarded"
