"""Parts cut out of a whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from twisted.internet.task import Clock

from dockmirror.body.wrappers import ResumingBody, Slice
from dockmirror.interfaces import IBody
from dockmirror.oci.descriptor import Descriptor
from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import Unavailable, Unreachable

from ..answering import Feed, Pieces, Recorder, now, watch
from ..values import cuts

DATA = bytes(range(40))
PIECES = cuts(DATA)
OFFSETS = st.integers(0, len(DATA))


@given(PIECES, OFFSETS, st.data(), st.booleans(), st.booleans())
def test_a_slice_equals_pythons(
    pieces: list[bytes], first: int, data: st.DataObject, at_once: bool, told: bool
) -> None:
    """However the body is cut, with a length or to the end, with a known size or not."""
    length: int | None = data.draw(st.none() | st.integers(0, len(DATA) - first))
    descriptor = Descriptor(size=len(DATA) if told else None)
    feed, recorder = Feed(descriptor), Recorder()
    content = Slice(Pieces(pieces, descriptor) if at_once else feed, first, length)
    outcome = watch(content.deliver(recorder))
    feed.send(*pieces)
    feed.end()
    assert outcome == [None]
    assert recorder.data == DATA[first:][:length]
    assert recorder.producer is None


@given(PIECES, st.integers(0, 60), st.integers(1, 60))
def test_an_incomplete_slice_fails(pieces: list[bytes], first: int, length: int) -> None:
    """The body ended before it, without breaking off."""
    recorder = Recorder()
    outcome = watch(Slice(Pieces(pieces), first, length).deliver(recorder))
    assert recorder.data == DATA[first:][:length]
    assert [type(result) for result in outcome] == [
        type(None) if first + length <= len(DATA) else Unreachable
    ]


def test_an_empty_slice_needs_one_piece() -> None:
    """It ends with the first piece, wherever it lies."""
    assert now(Slice(Pieces([b"", b"abc"]), 1, 0).deliver(Recorder())) is None


def test_a_slice_beyond_the_end_fails() -> None:
    """A body that ends exactly at the offset has an empty rest."""
    with pytest.raises(Unreachable):
        now(Slice(Pieces([b"abc"]), 4).deliver(Recorder()))
    assert now(Slice(Pieces([b"abc"]), 3).deliver(Recorder())) is None


def test_the_delivery_is_cancelled_after_the_slice() -> None:
    """The rest of a layer may be a gigabyte."""
    feed, recorder = Feed(Descriptor(size=1000)), Recorder()
    outcome = watch(Slice(feed, 1, 2).deliver(recorder))
    feed.send(b"ab")
    assert (outcome, feed.state) == ([], "open")
    feed.send(b"cd")
    assert (outcome, feed.state, recorder.data) == ([None], "cancelled", b"bc")


class Begun(Feed):
    """Has sent its first bytes by the time that it can be left."""

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        delivery = super().deliver(consumer)
        self.send(b"abcd")
        return delivery


def test_a_body_written_at_once_is_cancelled_at_once() -> None:
    """The rest of the body may take long."""
    begun, recorder = Begun(), Recorder()
    assert now(Slice(begun, 1, 2).deliver(recorder)) is None
    assert (begun.state, recorder.data) == ("cancelled", b"bc")


def test_a_running_coroutine_is_cancelled_at_the_next_piece() -> None:
    """A cancellation from within has no effect until then."""
    opening: Deferred[Begun] = Deferred()

    async def reopen(_: int) -> IBody:
        return await opening

    first, begun, recorder, clock = Feed(), Begun(), Recorder(), Clock()
    outcome = watch(Slice(ResumingBody(first, reopen, clock), 1, 2).deliver(recorder))
    first.break_off()
    clock.advance(0)
    opening.callback(begun)
    begun.send(b"efgh")
    assert (outcome, begun.state, recorder.data) == ([None], "cancelled", b"bc")


def test_a_body_that_ends_with_the_slice_is_not_cancelled() -> None:
    """Its connection stays usable."""
    feed, recorder = Feed(Descriptor(size=3)), Recorder()
    outcome = watch(Slice(feed, 1, 2).deliver(recorder))
    feed.send(b"abc")
    assert (outcome, feed.state) == ([], "open")
    feed.end()
    assert (outcome, feed.state, recorder.data) == ([None], "whole", b"bc")


def test_a_body_longer_than_announced_is_cancelled() -> None:
    """No byte too many is passed on."""
    feed, recorder = Feed(Descriptor(size=3)), Recorder()
    outcome = watch(Slice(feed, 1, 2).deliver(recorder))
    feed.send(b"abc")
    feed.send(b"d")
    assert (outcome, feed.state, recorder.data) == ([None], "cancelled", b"bc")


def test_a_failure_after_the_slice_is_ignored() -> None:
    """All that was asked for has arrived."""
    feed, recorder = Feed(Descriptor(size=3)), Recorder()
    outcome = watch(Slice(feed, 0, 3).deliver(recorder))
    feed.send(b"abc")
    feed.break_off()
    assert (outcome, recorder.data) == ([None], b"abc")
    assert now(Slice(Pieces([b"abcd"], error=Unreachable()), 0, 3).deliver(Recorder())) is None


@pytest.mark.parametrize("length", [None, 3])
def test_a_failure_within_the_slice_is_raised(length: int | None) -> None:
    """The caller can resume it."""
    error = Unreachable("broken off")
    with pytest.raises(Unreachable) as caught:
        now(Slice(Pieces([b"abc"], error=error), 1, length).deliver(Recorder()))
    assert caught.value is error


def test_other_failures_are_never_hidden() -> None:
    """Not even after the part has passed: bytes that are known to be wrong are cut off."""
    with pytest.raises(Unavailable):
        now(Slice(Pieces([b"abc"], error=Unavailable("corrupt")), 0, 3).deliver(Recorder()))


def test_a_slice_has_its_own_descriptor() -> None:
    """It has its own size, and not the body's digest."""
    whole = Descriptor("a/b", Digest.of(b""), 40)
    assert Slice(Feed(whole), 1, 2).descriptor == Descriptor("a/b", None, 2)
    assert Slice(Feed(whole), 1).descriptor == Descriptor("a/b", None, None)
