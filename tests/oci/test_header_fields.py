"""Entity tags, and links to the next page of a list."""

from __future__ import annotations

from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.oci.digest import Digest
from dockmirror.oci.header_fields import (
    demands_revalidation,
    etag_matches,
    format_etag,
    format_next_page,
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


@given(st.text(), digests)
def test_any_text_is_compared(header: str, digest: Digest) -> None:
    assert etag_matches(header, digest) is any(
        tag.strip().removeprefix("W/").strip('"') in ("*", str(digest)) for tag in header.split(",")
    )


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
