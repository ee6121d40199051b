"""An archive before a byte of it is read."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.archive.archive_plan import ArchivePlan, ContentSlice
from dockmirror.archive.read_archive import ArchiveContentError, read
from dockmirror.oci.digest import Digest

PIECES = st.lists(st.tuples(st.booleans(), st.binary(max_size=20)), max_size=8)


@given(PIECES, st.integers(0, 200), st.integers(0, 200))
def test_any_part(pieces: list[tuple[bool, bytes]], start: int, stop: int) -> None:
    """Is that part of the whole; and the length is known before."""
    held = {Digest.of(data): data for _, data in pieces}
    plan = ArchivePlan(
        tuple(ContentSlice(Digest.of(data), len(data)) if stored else data for stored, data in pieces)
    )
    whole = b"".join(data for _, data in pieces)
    assert plan.size == len(whole)
    assert b"".join(read(plan, lambda digest: io.BytesIO(held[digest]))) == whole
    assert b"".join(read(plan, lambda digest: io.BytesIO(held[digest]), start, stop)) == whole[start:stop]


@pytest.mark.parametrize("there", [b"wrong", b"rig"])
def test_wrong_content(there: bytes) -> None:
    """Is noticed before anything follows it."""
    plan = ArchivePlan((b"before", ContentSlice(Digest.of(b"right"), 5), b"after"))
    passed: list[bytes] = []
    with pytest.raises(ArchiveContentError, match=str(Digest.of(b"right"))):
        passed.extend(read(plan, lambda _: io.BytesIO(there)))
    assert b"after" not in passed
