"""Entity tags, links to the next page of a list, and the mirrors that a request has passed."""

from __future__ import annotations

from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.oci.digest import Digest
from dockmirror.oci.header_fields import (
    Hop,
    demands_revalidation,
    etag_matches,
    format_etag,
    format_hops,
    format_next_page,
    parse_hops,
    parse_if_none_match,
    parse_next_page,
)

from ..values import digests

DIGEST = Digest.of(b"")


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
        *((other, DIGEST, False) for other in (None, "", '""', ",", "W/", '"latest"', str(DIGEST)[:-1])),
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


QUERIES = st.lists(
    st.tuples(st.text(st.characters(codec="utf-8"), min_size=1), st.text(st.characters(codec="utf-8"))),
    min_size=1,
).map(tuple)
PAGE = (("last", "v2"), ("n", "2"))


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


A, B = "a" * 32, "b" * 32
HOPS = st.builds(
    Hop,
    st.text("0123456789abcdef", min_size=32, max_size=32),
    st.text("0123456789", max_size=16),
    st.booleans(),
)


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
