"""Contents that are right, or are not completed."""

from __future__ import annotations

import random
import sys
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.body.verified import TAIL_HOLDBACK, CorruptContent, VerifiedBody
from dockmirror.oci.descriptor import Descriptor
from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import Unavailable, Unreachable

from ..answering import Feed, Recorder, watch
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
def test_what_is_right_arrives_whole(pieces: list[bytes], told: bool, algorithm: str) -> None:
    """However it is cut, whatever its size, by each algorithm."""
    data = b"".join(pieces)
    feed, recorder = Feed(Descriptor("a/b", None, len(data) if told else None)), Recorder()
    outcome = watch(VerifiedBody(feed, Digest.of(data, algorithm)).deliver(recorder))
    feed.send(*pieces)
    feed.end()
    assert outcome == [None]
    assert recorder.data == data


@given(CONTENTS, st.booleans())
def test_the_end_is_held_back(pieces: list[bytes], told: bool) -> None:
    """64 KiB of what came, or of what is to come; what is before it flows."""
    data = b"".join(pieces)
    feed, recorder = Feed(Descriptor(size=len(data) if told else None)), Recorder()
    VerifiedBody(feed, Digest.of(data)).deliver(recorder)
    for piece, received in zip(pieces, accumulate(map(len, pieces)), strict=True):
        feed.send(piece)
        passed = len(recorder.data)
        free = max(0, min(received, len(data) - TAIL_HOLDBACK) if told else received - TAIL_HOLDBACK)
        assert passed <= free
        assert passed > free - max(map(len, pieces)) or passed == free


@given(CONTENTS.filter(any), st.data(), st.booleans())
def test_one_wrong_bit_is_enough(pieces: list[bytes], data: st.DataObject, told: bool) -> None:
    """It is never completed, and nothing of a content that is no longer than what is held back passes."""
    right = b"".join(pieces)
    wrong: bytes = data.draw(st.integers(0, len(right) - 1).map(lambda at: spoilt(right, at)))
    feed, recorder = Feed(Descriptor(size=len(right) if told else None)), Recorder()
    outcome = watch(VerifiedBody(feed, Digest.of(right)).deliver(recorder))
    feed.send(*data.draw(cuts(wrong)))
    feed.end()
    assert [type(error) for error in outcome] == [CorruptContent]
    assert len(recorder.data) <= max(0, len(right) - TAIL_HOLDBACK)
    assert wrong.startswith(recorder.data)


@given(CONTENTS, SIZES, st.booleans())
def test_another_length_is_wrong(pieces: list[bytes], size: int, told: bool) -> None:
    """Too short or too long: the end does not pass, nor does anything after it."""
    data, right = b"".join(pieces), DATA[:size]
    feed, recorder = Feed(Descriptor(size=size if told else None)), Recorder()
    outcome = watch(VerifiedBody(feed, Digest.of(right)).deliver(recorder))
    feed.send(*pieces)
    feed.end()
    if data == right:
        assert outcome == [None]
        return
    assert [type(error) for error in outcome] == [CorruptContent]
    assert len(recorder.data) <= max(0, (size if told else len(data)) - TAIL_HOLDBACK)


def test_what_is_known_to_be_followed_by_more_flows_at_once() -> None:
    """Where the size was told, the first byte need not wait for the next 64 KiB."""
    feed, recorder = Feed(Descriptor(size=TAIL_HOLDBACK + 1)), Recorder()
    VerifiedBody(feed, Digest.of(DATA[: TAIL_HOLDBACK + 1])).deliver(recorder)
    feed.send(DATA[:1], DATA[1:2])
    assert recorder.data == DATA[:1]


def test_64_kib_are_held_back() -> None:
    """So much does a client miss of a blob that is wrong; a manifest that fits into it never shows."""
    assert TAIL_HOLDBACK == 65536


def test_a_size_that_is_wrong_is_wrong() -> None:
    """Also where the digest is right: clients were told that size."""
    feed, recorder = Feed(Descriptor(size=4)), Recorder()
    outcome = watch(VerifiedBody(feed, Digest.of(b"abc")).deliver(recorder))
    feed.send(b"abc")
    feed.end()
    assert [type(error) for error in outcome] == [CorruptContent]
    assert recorder.pieces == []


def test_what_is_too_long_does_not_fill_the_memory() -> None:
    """Bytes beyond the size are not kept: an upstream may send them without end."""
    feed = Feed(Descriptor(size=10))
    VerifiedBody(feed, Digest.of(DATA)).deliver(Recorder())
    piece = b"".join([b"x", b"y" * 1000])
    before = sys.getrefcount(piece)
    feed.send(piece)
    assert sys.getrefcount(piece) == before


def test_a_wrong_content_is_the_upstreams_fault() -> None:
    """The error names the digest, and is answered like any other useless answer."""
    assert issubclass(CorruptContent, Unavailable)
    feed, digest = Feed(), Digest.of(b"abc")
    outcome = watch(VerifiedBody(feed, digest).deliver(Recorder()))
    feed.end()
    assert str(digest) in str(outcome[0])


def test_a_content_that_breaks_off_is_not_called_wrong() -> None:
    """It may be gone on with; what was held back is dropped."""
    feed, recorder = Feed(), Recorder()
    outcome = watch(VerifiedBody(feed, Digest.of(b"abc")).deliver(recorder))
    feed.send(b"ab")
    feed.break_off()
    assert [type(error) for error in outcome] == [Unreachable]
    assert recorder.pieces == []


@pytest.mark.parametrize("told", [None, Digest.of(b"another")])
def test_it_is_described_by_the_digest_that_was_asked_for(told: Digest | None) -> None:
    """Whatever the upstream told."""
    digest = Digest.of(b"abc")
    content = VerifiedBody(Feed(Descriptor("a/b", told, 3)), digest)
    assert content.descriptor == Descriptor("a/b", digest, 3)
