from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.oci.cdn_loop import Hop, format_hops, parse_hops

A, B = "a" * 32, "b" * 32
HOPS = st.builds(
    Hop,
    st.text("0123456789abcdef", min_size=32, max_size=32),
    st.text("0123456789", max_size=16),
)


@given(st.lists(HOPS, max_size=16))
def test_what_is_written_is_read(hops: list[Hop]) -> None:
    assert parse_hops([format_hops(hops)]) == tuple(hops)


@given(st.lists(st.text(max_size=80), max_size=5))
def test_any_text_is_read(lines: list[str]) -> None:
    """Only what this mirror could have written counts."""
    hops = parse_hops(lines)
    assert parse_hops([format_hops(hops)]) == hops


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([f"dockmirror-{A}, dockmirror-{B}; pull=7"], (Hop(A), Hop(B, "7"))),
        ([f"dockmirror-{A}", f"dockmirror-{B};pull=7"], (Hop(A), Hop(B, "7"))),
        ([f"cloudflare; loops=1, dockmirror-{A}, google"], (Hop(A),)),
        (["dockmirror", f"dockmirror-{A}0", f"dockmirror-{A.upper()}", f"dockmirror-{A}; pull=x"], ()),
        ([], ()),
    ],
)
def test_only_members_of_mirrors_are_read(lines: list[str], expected: tuple[Hop, ...]) -> None:
    """A CDN in front of the mirror and of a registry would refuse a request that it seems to get again."""
    assert parse_hops(lines) == expected


def test_a_long_chain_keeps_its_last_mirrors() -> None:
    """A field that a client sends does not grow from mirror to mirror; a loop is among the last ones."""
    hops = [Hop(f"{n:032x}") for n in range(20)]
    assert parse_hops([format_hops(hops)]) == tuple(hops[4:])
