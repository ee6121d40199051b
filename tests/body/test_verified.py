"""Bodies whose tail is withheld until the digest matches."""

from __future__ import annotations

import random
import sys
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dockmirror.body.bodies import TAIL_HOLDBACK, CorruptContent, ErrorPageGuardBody, VerifiedBody
from dockmirror.oci.digest import Descriptor, Digest
from dockmirror.oci.errors import Unavailable, Unreachable

from ..answering import Feed, Pieces, Recorder, now, watch
from ..values import cuts

DATA = random.Random(1).randbytes(3 * TAIL_HOLDBACK)
SIZES = st.sampled_from(
    [0, 1, TAIL_HOLDBACK - 1, TAIL_HOLDBACK, TAIL_HOLDBACK + 1, 2 * TAIL_HOLDBACK, 3 * TAIL_HOLDBACK]
) | st.integers(0, 3 * TAIL_HOLDBACK)
CONTENTS = SIZES.map(lambda size: DATA[:size]).flatmap(cuts)
ALGORITHMS = st.sampled_from(["sha256", "sha384", "sha512"])


def spoilt(data: bytes, at: int) -> bytes:
    """The data with one bit another."""
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@given(CONTENTS, st.booleans(), ALGORITHMS)
def test_the_tail_is_withheld_until_the_body_is_complete(
    pieces: list[bytes], is_size_known: bool, algorithm: str
) -> None:
    """The last 64 KiB wait, and the bytes before them flow, however the body is cut."""
    data = b"".join(pieces)
    feed, recorder = Feed(Descriptor("a/b", None, len(data) if is_size_known else None)), Recorder()
    outcome = watch(VerifiedBody(feed, Digest.of(data, algorithm)).deliver(recorder))
    for piece, received in zip(pieces, accumulate(map(len, pieces)), strict=True):
        feed.send(piece)
        delivered = len(recorder.data)
        known = min(received, len(data) - TAIL_HOLDBACK) if is_size_known else received - TAIL_HOLDBACK
        free = max(0, known)
        assert delivered <= free
        assert delivered > free - max(map(len, pieces)) or delivered == free
    feed.end()
    assert (outcome, recorder.data) == ([None], data)


@settings(max_examples=50)
@given(CONTENTS.filter(any), st.data(), st.booleans())
def test_a_wrong_bit_fails(pieces: list[bytes], data: st.DataObject, is_size_known: bool) -> None:
    """The body is never completed, and one that fits into the tail does not pass at all."""
    right = b"".join(pieces)
    wrong: bytes = data.draw(st.integers(0, len(right) - 1).map(lambda at: spoilt(right, at)))
    feed, recorder = Feed(Descriptor(size=len(right) if is_size_known else None)), Recorder()
    outcome = watch(VerifiedBody(feed, Digest.of(right)).deliver(recorder))
    feed.send(*data.draw(cuts(wrong)))
    feed.end()
    assert [type(error) for error in outcome] == [CorruptContent]
    assert len(recorder.data) <= max(0, len(right) - TAIL_HOLDBACK)
    assert wrong.startswith(recorder.data)


@settings(max_examples=50)
@given(CONTENTS, SIZES, st.booleans())
def test_a_wrong_length_fails(pieces: list[bytes], size: int, is_size_known: bool) -> None:
    """The tail does not pass, nor anything after it."""
    data, right = b"".join(pieces), DATA[:size]
    feed, recorder = Feed(Descriptor(size=size if is_size_known else None)), Recorder()
    outcome = watch(VerifiedBody(feed, Digest.of(right)).deliver(recorder))
    feed.send(*pieces)
    feed.end()
    if data == right:
        assert outcome == [None]
        return
    assert [type(error) for error in outcome] == [CorruptContent]
    assert len(recorder.data) <= max(0, (size if is_size_known else len(data)) - TAIL_HOLDBACK)


def test_a_known_size_lets_the_beginning_flow() -> None:
    """The first byte need not wait for the next 64 KiB, which a client misses of a wrong blob."""
    assert TAIL_HOLDBACK == 65536
    feed, recorder = Feed(Descriptor(size=TAIL_HOLDBACK + 1)), Recorder()
    VerifiedBody(feed, Digest.of(DATA[: TAIL_HOLDBACK + 1])).deliver(recorder)
    feed.send(DATA[:1], DATA[1:2])
    assert recorder.data == DATA[:1]


def test_a_wrong_size_fails_with_the_right_digest() -> None:
    """Clients were told that size."""
    feed, recorder = Feed(Descriptor(size=4)), Recorder()
    outcome = watch(VerifiedBody(feed, Digest.of(b"abc")).deliver(recorder))
    feed.send(b"abc")
    feed.end()
    assert isinstance(outcome[0], CorruptContent)
    assert isinstance(outcome[0], Unavailable)
    assert str(Digest.of(b"abc")) in str(outcome[0])
    assert recorder.pieces == []


def test_bytes_beyond_the_size_are_not_buffered() -> None:
    """An upstream may send them without end."""
    feed = Feed(Descriptor(size=10))
    VerifiedBody(feed, Digest.of(DATA)).deliver(Recorder())
    piece = b"".join([b"x", b"y" * 1000])
    before = sys.getrefcount(piece)
    feed.send(piece)
    assert sys.getrefcount(piece) == before


def test_a_body_that_breaks_off_is_not_corrupt() -> None:
    """It may be resumed; the withheld tail is dropped."""
    feed, recorder = Feed(), Recorder()
    outcome = watch(VerifiedBody(feed, Digest.of(b"abc")).deliver(recorder))
    feed.send(b"ab")
    feed.break_off()
    assert [type(error) for error in outcome] == [Unreachable]
    assert recorder.pieces == []


@pytest.mark.parametrize("reported", [None, Digest.of(b"another")])
def test_a_verified_body_has_the_requested_digest(reported: Digest | None) -> None:
    """The upstream's own claim is ignored."""
    digest = Digest.of(b"abc")
    content = VerifiedBody(Feed(Descriptor("a/b", reported, 3)), digest)
    assert content.descriptor == Descriptor("a/b", digest, 3)


LAYER = b"<html>a layer</html>"


def test_a_guarded_mismatch_means_unavailable() -> None:
    """It does not count as corrupt, which would quarantine the blob; a right body passes."""
    recorder = Recorder()
    now(ErrorPageGuardBody(Pieces([LAYER]), Digest.of(LAYER), "a web page").deliver(recorder))
    assert recorder.data == LAYER
    recorder, page = Recorder(), Pieces([b"<html>please log in</html>"])
    with pytest.raises(Unavailable, match="a web page") as raised:
        now(ErrorPageGuardBody(page, Digest.of(LAYER), "a web page").deliver(recorder))
    assert not isinstance(raised.value, CorruptContent)
    assert recorder.data == b""
