"""Consent to a content: what a HEAD proves, and what a part of the bytes does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.oci.consent import SAMPLE, SAMPLED, HeldBlob, head_consents, sampled_part
from dockmirror.oci.digest import Descriptor, Digest
from dockmirror.oci.header_fields import ContentRange

from ..answering import now

HELD, OTHER = Digest.of(b"held"), Digest.of(b"other")


@given(st.integers(1, 10 * SAMPLED))
def test_a_sample_lies_in_the_first_mebibyte(size: int) -> None:
    """It has 64 bytes, or all of a smaller blob, and names the size of the whole."""
    part = sampled_part(size)
    assert part.size == size
    assert part.length == min(SAMPLE, size)
    assert 0 <= part.first <= part.last < min(size, SAMPLED)


def test_a_sample_is_taken_at_random() -> None:
    assert len({sampled_part(SAMPLED).first for _ in range(50)}) > 40


@given(st.binary(min_size=1), st.data())
def test_a_sample_proves_the_bytes_and_the_size(data: bytes, draw: st.DataObject) -> None:
    """Another byte, another part and another total prove nothing, and neither does an unknown total."""

    async def read(part: ContentRange) -> bytes:
        return data[part.first : part.last + 1]

    held = HeldBlob(len(data), read)
    part = held.part
    assert part is not None
    right = now(read(part))
    assert now(held.matches(part, right))
    wrong = bytearray(right)
    wrong[draw.draw(st.integers(0, len(wrong) - 1))] ^= 1
    assert not now(held.matches(part, bytes(wrong)))
    assert not now(held.matches(part, right[:-1]))
    for other in (None, ContentRange(part.first, part.last, None), sampled_part(len(data) + 1)):
        assert not now(held.matches(other, right))


def test_of_an_empty_blob_there_is_no_sample() -> None:
    """Nor is there one of a blob of unknown size: the size is a part of the proof."""

    async def read(_: ContentRange) -> bytes:
        return b""

    assert [HeldBlob(size, read).part for size in (0, None)] == [None, None]


@pytest.mark.parametrize(
    ("reported", "digest", "size", "consents"),
    [
        (Descriptor("a/b", HELD, 4), HELD, 4, True),
        (Descriptor("a/b", HELD, 4), HELD, None, True),
        (Descriptor("a/b", HELD, 5), HELD, 4, False),
        (Descriptor("a/b", HELD, 0), HELD, 4, False),
        (Descriptor("a/b", HELD, None), HELD, 4, False),
        (Descriptor("a/b", None, 4), HELD, 4, False),
        (Descriptor("a/b", OTHER, 4), HELD, 4, False),
        (Descriptor("a/b", OTHER, 4), None, None, True),
        (Descriptor("a/b", None, 4), None, None, False),
    ],
)
def test_a_head_proves_by_digest_and_length(
    reported: Descriptor, digest: Digest | None, size: int | None, consents: bool
) -> None:
    """Both must be present and right; for a tag any digest is."""
    assert head_consents(reported, digest, size) is consents
