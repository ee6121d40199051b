"""Contents that are kept while they pass."""

from __future__ import annotations

import sys

from hypothesis import given
from hypothesis import strategies as st

from dockmirror.body.wrappers import Tee
from dockmirror.oci.descriptor import Descriptor

from ..answering import Feed, Recorder, watch
from ..values import CHUNKS


class Nobody(Recorder):
    """Keeps nothing."""

    def write(self, data: bytes) -> None:
        pass


@given(CHUNKS, st.integers(0, 60))
def test_a_tee_copies_up_to_a_limit(chunks: list[bytes], limit: int) -> None:
    """The copy is complete or not made; the consumer gets everything."""
    whole, kept = b"".join(chunks), list[bytes]()
    feed, recorder = Feed(), Recorder()
    outcome = watch(Tee(feed, limit, kept.append).deliver(recorder))
    feed.send(*chunks)
    assert kept == []
    feed.end()
    assert (outcome, recorder.data) == ([None], whole)
    assert kept == ([whole] if len(whole) <= limit else [])


def test_an_incomplete_body_is_not_copied() -> None:
    """Neither one that broke off nor one that was cancelled."""
    kept = list[bytes]()
    for end in ("break", "cancel"):
        feed = Feed()
        delivery = Tee(feed, 10, kept.append).deliver(Recorder())
        outcome = watch(delivery)
        feed.send(b"abc")
        feed.break_off() if end == "break" else delivery.cancel()
        assert isinstance(outcome[0], Exception)
    assert kept == []


def test_a_body_beyond_the_limit_is_not_buffered() -> None:
    """The first byte beyond the limit drops the copy."""
    feed = Feed()
    Tee(feed, 1500, lambda _: None).deliver(Nobody())
    pieces = [b"".join([b"x", bytes(1000)]) for _ in range(3)]
    before = [sys.getrefcount(piece) for piece in pieces]
    feed.send(*pieces)
    assert [sys.getrefcount(piece) for piece in pieces] == before


def test_a_tee_keeps_the_descriptor() -> None:
    """Nothing is changed on the way."""
    descriptor = Descriptor("a/b", None, 3)
    assert Tee(Feed(descriptor), 10, lambda _: None).descriptor is descriptor
