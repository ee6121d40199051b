"""Tests of archive plans."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.archive.archive_plan import ArchiveContentError, ArchivePlan, ContentSlice, read_archive
from dockmirror.oci.digest import Digest

PIECES = st.lists(st.tuples(st.booleans(), st.binary(max_size=20)), max_size=8)


@given(PIECES, st.integers(0, 200), st.integers(0, 200))
def test_any_part_equals_that_part_of_the_archive(
    pieces: list[tuple[bool, bytes]], start: int, stop: int
) -> None:
    """The length is known before anything is read."""
    held = {Digest.of(data): data for _, data in pieces}
    plan = ArchivePlan(
        tuple(ContentSlice(Digest.of(data), len(data)) if stored else data for stored, data in pieces)
    )
    whole = b"".join(data for _, data in pieces)
    assert plan.size == len(whole)
    assert b"".join(read_archive(plan, lambda digest: io.BytesIO(held[digest]))) == whole
    assert (
        b"".join(read_archive(plan, lambda digest: io.BytesIO(held[digest]), start, stop))
        == whole[start:stop]
    )


@pytest.mark.parametrize("there", [b"wrong", b"rig"])
def test_a_corrupt_content_stops_the_archive(there: bytes) -> None:
    """Nothing that follows it is read."""
    plan = ArchivePlan((b"before", ContentSlice(Digest.of(b"right"), 5), b"after"))
    passed: list[bytes] = []
    with pytest.raises(ArchiveContentError, match=str(Digest.of(b"right"))):
        passed.extend(read_archive(plan, lambda _: io.BytesIO(there)))
    assert b"after" not in passed
