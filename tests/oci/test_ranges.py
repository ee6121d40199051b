"""Ranges as asked, and parts as resolved."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dockmirror.oci.errors import RegistryError
from dockmirror.oci.ranges import ContentRange, Range, Span, format_unsatisfied, parse_unsatisfied

from ..values import attempt

NUMBERS = st.integers(0, 10**18 - 1) | st.integers(0, 20)
SIZES = st.integers(0, 30)
PAIRS = st.tuples(NUMBERS, NUMBERS).map(sorted)
SPANS = st.one_of(
    st.builds(lambda pair: Span(*pair), PAIRS),
    st.builds(Span, NUMBERS),
    st.builds(Span, st.none(), suffix=NUMBERS),
)
RANGES = st.lists(SPANS, min_size=1, max_size=5).map(lambda spans: Range(tuple(spans)))
ODD = st.text() | st.text("bytes=-,*/ 0123456789\u0663", max_size=40)


@given(RANGES)
def test_a_range_that_is_written_is_read_again(asked: Range) -> None:
    """One or many; from, to, and the last so many bytes."""
    assert Range.parse(str(asked)) == asked


@given(PAIRS, st.none() | NUMBERS)
def test_a_part_that_is_written_is_read_again(ends: list[int], more: int | None) -> None:
    """A part is parsed as it was written, with or without the whole size."""
    size = None if more is None else ends[1] + 1 + more
    assume(size is None or size < 10**18)
    part = ContentRange(ends[0], ends[1], size)
    assert ContentRange.parse(str(part)) == part


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


@pytest.mark.parametrize(
    "text",
    [
        *("", "bytes", "bytes=", "bytes=,", "bytes=-", "bytes=1", "bytes=a-b", "bytes=2-1", "bytes=0-1;2-3"),
        *("items=0-1", "0-1", "bytes=0x1-2", "bytes=+1-2", "bytes=1 - 2", "bytes=--1", "bytes=0-1,x"),
        *("bytes=\u0663-\u0664", "bytes=" + "9" * 19 + "-", "bytes=0-1\n-"),
    ],
)
def test_what_is_no_range_is_none(text: str) -> None:
    """Such a header is ignored (14.2): the whole is sent, also when only one of several is wrong."""
    assert Range.parse(text) is None


@pytest.mark.parametrize(
    "text",
    [
        *("", "bytes", "bytes 0-1", "bytes 1-0/2", "bytes 0-2/2", "bytes */2", "bytes 0-/2", "0-1/2"),
        *("items 0-1/2", "bytes=0-1/2", "bytes 0-1/x", "bytes \u0660-\u0661/\u0662", "bytes 0-1/2, 3-4/5"),
    ],
)
def test_what_is_no_part_is_none(text: str) -> None:
    """Backwards, beyond the end, without a size: no part that can be."""
    assert ContentRange.parse(text) is None


@given(ODD)
def test_no_text_is_too_odd(text: str) -> None:
    """A header is read or ignored; what was read is written in the same sense."""
    for parse in (Range.parse, ContentRange.parse):
        value = parse(text)
        assert value is None or parse(str(value)) == value
    parse_unsatisfied(text)


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


def test_a_joined_part_stands_where_its_first_one_stood() -> None:
    """Parts come in the order in which they were asked for."""
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


def test_of_several_those_that_can_be_are_given() -> None:
    """Satisfiable ranges among several are returned in the requested order."""
    parts = Range((Span(8, 9), Span(20, 30), Span(0, 0))).resolve(10)
    assert parts == (ContentRange(8, 9, 10), ContentRange(0, 0, 10))


def test_only_one_is_known_as_such() -> None:
    """Most clients send one; of several there is no single part."""
    assert Range.starting_at(3).single == Span(3)
    assert Range((Span(0, 1), Span(3))).single is None


def test_the_rest_is_asked_for_from_an_offset() -> None:
    """A range from an offset goes to the end, or to the end of the requested part."""
    assert str(Range.starting_at(3)) == "bytes=3-"
    assert str(Range.starting_at(3, 9)) == "bytes=3-9"


@given(NUMBERS)
def test_a_refusal_tells_the_size(size: int) -> None:
    """A client that asked for too much learns how much there is."""
    assert parse_unsatisfied(format_unsatisfied(size)) == size


@pytest.mark.parametrize("text", ["", "bytes */", "bytes */*", "bytes 0-1/2", "bytes */-1", "bytes */\u0663"])
def test_what_tells_no_size_is_none(text: str) -> None:
    """A 416 without one is passed on without one."""
    assert parse_unsatisfied(text) is None
