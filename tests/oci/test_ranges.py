"""Ranges as asked, and parts as resolved."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.oci.errors import RegistryError
from dockmirror.oci.header_fields import ContentRange, Range, Span, format_unsatisfied, parse_unsatisfied

from ..values import attempt
from .test_round_trips import NUMBERS, RANGES, SPANS

SIZES = st.integers(0, 30)


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("bytes=0-0", Range((Span(0, 0),))),
        ("bytes=5-", Range((Span(5),))),
        ("bytes=-5", Range((Span(None, suffix=5),))),
        ("Bytes = 0-1 , 3-", Range((Span(0, 1), Span(3)))),
        ("bytes=,0-1,,", Range((Span(0, 1),))),
    ],
)
def test_it_is_read_as_rfc_9110_has_it(text: str, asked: Range) -> None:
    """The unit has no letter case, and a list may have empty elements."""
    assert Range.parse(text) == asked


@given(RANGES, SIZES)
def test_parts_lie_within_the_content(asked: Range, size: int) -> None:
    """Parts are not empty, end within the content, and know its size."""
    parts = attempt(asked.resolve, size)
    if isinstance(parts, RegistryError):
        assert (parts.code, parts.status, parts.content_size) == ("RANGE_INVALID", 416, size)
        assert not any(span.resolve(size) for span in asked.spans)
        return
    assert parts
    for part in parts:
        assert 0 <= part.first <= part.last < size
        assert part.size == size
        assert part.length == len(range(size)[part.first : part.last + 1]) > 0


@given(RANGES, SIZES)
def test_no_byte_is_sent_twice(asked: Range, size: int) -> None:
    """The parts are the bytes that were asked for, each once, and no two parts overlap or touch."""
    parts = attempt(asked.resolve, size)
    if isinstance(parts, RegistryError):
        return
    wanted = {n for part in (span.resolve(size) for span in asked.spans) if part for n in numbers(part)}
    assert sorted(n for part in parts for n in numbers(part)) == sorted(wanted)
    ordered = sorted(parts, key=lambda part: part.first)
    assert all(one.last + 1 < next.first for one, next in pairwise(ordered))


def numbers(part: ContentRange) -> range:
    return range(part.first, part.last + 1)


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        *(
            (Range.parse, f"bytes={spec}")
            for spec in ("", ",", "-", "1", "a-b", "2-1", "0-1;2-3", "0x1-2", "+1-2")
        ),
        *(
            (Range.parse, f"bytes={spec}")
            for spec in ("1 - 2", "--1", "0-1,x", "\u0663-\u0664", "9" * 19 + "-")
        ),
        *((Range.parse, text) for text in ("", "bytes", "items=0-1", "0-1", "bytes=0-1\n-")),
        *(
            (ContentRange.parse, f"bytes {part}")
            for part in ("0-1", "1-0/2", "0-2/2", "*/2", "0-/2", "0-1/x")
        ),
        *((ContentRange.parse, f"bytes {part}") for part in ("0-1/2, 3-4/5", "\u0660-\u0661/\u0662")),
        *((ContentRange.parse, text) for text in ("", "bytes", "0-1/2", "items 0-1/2", "bytes=0-1/2")),
        *((parse_unsatisfied, f"bytes {size}") for size in ("", "*/", "*/*", "0-1/2", "*/-1", "*/\u0663")),
    ],
)
def test_malformed_ranges_are_ignored(parse: Callable[[str], object], text: str) -> None:
    """Also if only one of several is malformed (14.2), a part is impossible, or a 416 states no size."""
    assert parse(text) is None


def test_a_single_range_is_known_as_such() -> None:
    """It goes from an offset to the end, or to the last byte; of several ranges, none is single."""
    assert (str(Range.starting_at(3)), str(Range.starting_at(3, 9))) == ("bytes=3-", "bytes=3-9")
    assert Range.starting_at(3).single == Span(3)
    assert Range((Span(0, 1), Span(3))).single is None


def test_a_joined_part_stands_where_its_first_one_stood() -> None:
    """Satisfiable parts come in the order in which they were requested."""
    parts = Range((Span(8, 9), Span(20, 30), Span(0, 0))).resolve(10)
    assert parts == (ContentRange(8, 9, 10), ContentRange(0, 0, 10))
    asked = Range.parse("bytes=8-9,0-2,4-5,1-4")
    assert asked is not None
    assert asked.resolve(10) == (ContentRange(8, 9, 10), ContentRange(0, 5, 10))


@given(SPANS, SIZES)
def test_a_part_is_what_a_slice_would_be(span: Span, size: int) -> None:
    """The bytes that are asked for, as far as there are any."""
    content = list(range(size))
    if span.first is not None:
        wanted = content[span.first :] if span.last is None else content[span.first : span.last + 1]
    else:
        assert span.suffix is not None
        wanted = content[-span.suffix :] if span.suffix else []
    part = span.resolve(size)
    assert (content[part.first : part.last + 1] if part else []) == wanted


@given(NUMBERS)
def test_a_refusal_tells_the_size(size: int) -> None:
    """A client that asked for too much learns how much there is."""
    assert parse_unsatisfied(format_unsatisfied(size)) == size
