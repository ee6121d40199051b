"""Ranges, ``Cache-Status`` and the fields beside it, entity tags, links, and the mirrors that were passed."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import RegistryError
from dockmirror.oci.header_fields import (
    CacheResult,
    CacheStatus,
    ContentRange,
    Hop,
    Range,
    Span,
    demands_revalidation,
    etag_matches,
    format_etag,
    format_hops,
    format_next_page,
    format_unsatisfied,
    parse_age,
    parse_hops,
    parse_if_none_match,
    parse_next_page,
    parse_unsatisfied,
)

from ..values import attempt, digests
from .test_round_trips import NUMBERS, RANGES, SPANS

SIZES = st.integers(0, 30)
DIGEST = Digest.of(b"")
QUERIES = st.lists(
    st.tuples(st.text(st.characters(codec="utf-8"), min_size=1), st.text(st.characters(codec="utf-8"))),
    min_size=1,
).map(tuple)
PAGE = (("last", "v2"), ("n", "2"))
A, B = "a" * 32, "b" * 32
HOPS = st.builds(
    Hop,
    st.text("0123456789abcdef", min_size=32, max_size=32),
    st.text("0123456789", max_size=16),
    st.booleans(),
)


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


@pytest.mark.parametrize("result", CacheResult)
def test_round_trip(result: CacheResult) -> None:
    """A result that is written is read back."""
    headers = dict(CacheStatus(result).headers())
    assert headers["Cache-Status"] == f"dockmirror; {result.value}"
    assert CacheStatus.parse([headers["Cache-Status"]]) == CacheStatus(result)


@pytest.mark.parametrize(
    "field", ["", "hit", "squid; hit", "dockmirror", "dockmirror; fwd=else", f"{2000 * ' '}, dockmirror; hit"]
)
def test_fields_of_other_caches_are_ignored(field: str) -> None:
    assert CacheStatus.parse([field]) is None


@pytest.mark.parametrize(
    "lines",
    [
        ["dockmirror; hit", "dockmirror; fwd=miss"],
        ['cdn; detail="a, b; hit", dockmirror; fwd=miss'],
        ['"a, \\"b", dockmirror; fwd=miss'],
    ],
)
def test_the_nearest_of_several_caches_counts(lines: list[str]) -> None:
    assert CacheStatus.parse(lines) == CacheStatus(CacheResult.MISS)
    assert CacheStatus.parse([*lines, "squid; hit"]) is None


@pytest.mark.parametrize(
    ("field", "age"),
    [
        ("0", 0),
        (" 7 ", 7),
        ("9999999999", 9999999999),
        (None, None),
        ("-1", None),
        ("1.5", None),
        ("x", None),
    ],
)
def test_an_age_is_a_number_of_seconds(field: str | None, age: float | None) -> None:
    assert parse_age(field) == age


def test_hits() -> None:
    """A hit is an answer for which no upstream was asked."""
    hits = [CacheResult.HIT, CacheResult.STALE_WHILE_REVALIDATE, CacheResult.REDIRECTED]
    assert [each for each in CacheResult if each.is_hit] == hits


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ('say "no"\\\n' + "x" * 300, "say 'no'/ " + "x" * 190),
        ("a\r\nSet-Cookie: x", "a Set-Cookie: x"),
        ("nein, über\x00\x7f", "nein, ?ber"),
        ("", "the upstream gave no reason"),
    ],
)
def test_every_field(reason: str, text: str) -> None:
    """A status names its age, the reason for staleness as printable text, and how long others may keep it."""
    assert CacheStatus(CacheResult.STALE, -0.5, reason, immutable=True).headers() == (
        ("Cache-Status", "dockmirror; fwd=stale; detail=upstream"),
        ("Vary", "Accept, Authorization"),
        ("Age", "0"),
        ("Warning", f'299 - "served stale: {text}"'),
        ("Cache-Control", "public, max-age=31536000, immutable"),
    )


@given(digests, st.lists(digests), st.booleans(), st.sampled_from([",", ", ", " , "]))
def test_a_client_that_has_it_is_known(digest: Digest, others: list[Digest], weak: bool, comma: str) -> None:
    """A tag among several matches, also a weak one (13.1.2); others do not."""
    tags = [format_etag(other) for other in others if other != digest]
    assert not etag_matches(comma.join(tags), digest)
    assert etag_matches(comma.join([*tags, ("W/" if weak else "") + format_etag(digest), *tags]), digest)


@pytest.mark.parametrize(
    ("header", "digest", "matches"),
    [
        ("*", DIGEST, True),
        (f'"{DIGEST}"', None, False),
        *(
            (other, DIGEST, False)
            for other in (None, "", '""', '"*"', ",", "W/", '"latest"', str(DIGEST)[:-1])
        ),
    ],
)
def test_a_client_without_the_content_is_sent_it(
    header: str | None, digest: Digest | None, matches: bool
) -> None:
    """A star matches any content; another tag, none, or a content without a digest does not match."""
    assert etag_matches(header, digest) is matches


@pytest.mark.parametrize(
    ("sent", "parsed"),
    [
        (None, None), ("*", "*"), ('"a"', '"a"'), ('W/"a" , "b,c"', 'W/"a" , "b,c"'),
        (str(DIGEST), f'"{DIGEST}"'),
        ("", None), ('"a', None), ('"a"b', None), ('"a",', None), ("a b", None), ('"\ufffd"', None),
        ('"a\r\n"', None),
    ],
)  # fmt: skip
def test_only_tags_are_passed_on(sent: str | None, parsed: str | None) -> None:
    """RFC 9110, 8.8.3; a digest without its quotes is one all the same."""
    assert parse_if_none_match(sent) == parsed


@given(st.text())
def test_an_accepted_condition_is_printable(sent: str) -> None:
    """It is accepted again unchanged."""
    parsed = parse_if_none_match(sent)
    assert parsed is None or (parsed.isascii() and parsed.replace("\t", " ").isprintable())
    assert parse_if_none_match(parsed) == parsed


@given(QUERIES)
def test_a_link_is_parsed_as_it_was_written(query: tuple[tuple[str, str], ...]) -> None:
    assert parse_next_page([format_next_page("/v2/x/tags/list", query)]) == query


@pytest.mark.parametrize(
    "lines",
    [
        ['<?n=1>; rel="first"', '<?last=v2&n=2>; rel="next"', '<?last=v3>; rel="next"'],
        ['</v2/x/tags/list?last=v2&n=2>; rel="next"'],
        ["</v2/x/tags/list?last=v2&n=2>; rel=next"],
        ['<https://registry.example:5000/v2/library/x/tags/list?last=v2&n=2>;rel="next"'],
        ['<?last=v2&n=2>; title="more"; rel="next"'],
        ['</v2/x/tags/list?last=v2&n=2>; REL = "NEXT" ; title=more'],
        ['</v2/x/tags/list?n=2>; rel="prev", </v2/x/tags/list?last=v2&n=2>; rel="next"'],
    ],
)
def test_an_upstream_may_write_it_in_many_ways(lines: list[str]) -> None:
    """Relative, absolute, under another name of the repository, among others: only the first query counts."""
    assert parse_next_page(lines) == PAGE


@pytest.mark.parametrize(
    "line",
    [
        *("", "?last=v2", '</v2/x/tags/list?last=v2>; rel="previous"', "</v2/x/tags/list?last=v2>"),
        *('</v2/x?last=v2>; rel="nextish"', "<http://[?last=v2>; rel=next", '<?a>; title="next"'),
        '<?a>; rev="next"',
    ],
)
def test_without_one_there_is_no_next_page(line: str) -> None:
    """Other relations are not it, nor is an unreadable link; the last page has none."""
    assert parse_next_page([line]) is parse_next_page([]) is None


@given(st.lists(st.text() | st.text('<>;?&=,"relnxt ', max_size=60)))
def test_any_line_is_parsed_or_ignored(lines: list[str]) -> None:
    query = parse_next_page(lines)
    assert query is None or parse_next_page([format_next_page("/", query)]) in (query, ())


def test_it_names_the_path_that_the_client_asked() -> None:
    """The link has the client's path, which may differ from the upstream's."""
    link = format_next_page("/v2/busybox/tags/list", (("last", "a b&c>"), ("n", "2")))
    path, _, rest = link.removeprefix("<").partition("?")
    assert (path, rest.partition(">")[2]) == ("/v2/busybox/tags/list", '; rel="next"')
    assert parse_qsl(rest.partition(">")[0]) == [("last", "a b&c>"), ("n", "2")]


@pytest.mark.parametrize(
    ("lines", "demanded"),
    [
        ([], False),
        (["no-cache"], True),
        (["max-age=0 , No-Cache"], True),
        (["no-store", 'no-cache="x"'], True),
        (["no-store, max-age=0"], False),
        (["not-no-cache", ""], False),
    ],
)
def test_a_client_may_demand_revalidation(lines: list[str], demanded: bool) -> None:
    assert demands_revalidation(lines) is demanded


@given(st.lists(HOPS, max_size=16))
def test_hops_that_are_written_are_read(hops: list[Hop]) -> None:
    assert parse_hops([format_hops(hops)]) == tuple(hops)


@given(st.lists(st.text(max_size=80), max_size=5))
def test_any_text_of_hops_is_read(lines: list[str]) -> None:
    """Only what this mirror could have written counts."""
    hops = parse_hops(lines)
    assert parse_hops([format_hops(hops)]) == hops


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([f"dockmirror-{A}, dockmirror-{B}; pull=7"], (Hop(A), Hop(B, "7"))),
        ([f"dockmirror-{A}", f"dockmirror-{B};pull=7"], (Hop(A), Hop(B, "7"))),
        ([f"cloudflare; loops=1, dockmirror-{A}, google"], (Hop(A),)),
        ([f"dockmirror-{A} ; peer, dockmirror-{B};pull=7; peer"], (Hop(A, "", True), Hop(B, "7", True))),
        (["dockmirror", f"dockmirror-{A}0", f"dockmirror-{A.upper()}", f"dockmirror-{A}; pull=x"], ()),
        ([], ()),
    ],
)
def test_only_members_of_mirrors_are_read(lines: list[str], expected: tuple[Hop, ...]) -> None:
    """A CDN in front of the mirror and of a registry would refuse a request that it seems to get again."""
    assert parse_hops(lines) == expected


def test_a_long_chain_of_hops_keeps_its_last_mirrors() -> None:
    """A field that a client sends does not grow from mirror to mirror; a loop is among the last ones."""
    hops = [Hop(f"{n:032x}") for n in range(20)]
    assert parse_hops([format_hops(hops)]) == tuple(hops[4:])
