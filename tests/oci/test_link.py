"""Links to the next page, as upstreams write them and as clients read them."""

from __future__ import annotations

from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.oci.link import format_next_page, parse_next_page

QUERIES = st.lists(
    st.tuples(st.text(st.characters(codec="utf-8"), min_size=1), st.text(st.characters(codec="utf-8"))),
    min_size=1,
).map(tuple)
PAGE = (("last", "v2"), ("n", "2"))


@given(QUERIES)
def test_what_is_written_is_read_again(query: tuple[tuple[str, str], ...]) -> None:
    """Every query survives: ampersands, brackets, quotes, whatever a tag before it may hold."""
    assert parse_next_page([format_next_page("/v2/x/tags/list", query)]) == query


@pytest.mark.parametrize(
    "line",
    [
        '</v2/x/tags/list?last=v2&n=2>; rel="next"',
        "</v2/x/tags/list?last=v2&n=2>; rel=next",
        '<https://registry.example:5000/v2/library/x/tags/list?last=v2&n=2>;rel="next"',
        '<?last=v2&n=2>; title="more"; rel="next"',
        '</v2/x/tags/list?last=v2&n=2>; REL = "NEXT" ; title=more',
        '</v2/x/tags/list?n=2>; rel="prev", </v2/x/tags/list?last=v2&n=2>; rel="next"',
    ],
)
def test_an_upstream_may_write_it_in_many_ways(line: str) -> None:
    """Relative, absolute, under another name of the repository, among others: what counts is the query."""
    assert parse_next_page([line]) == PAGE


def test_it_may_stand_in_a_later_line() -> None:
    """The first that leads to a next page is taken."""
    lines = ['<?n=1>; rel="first"', '<?last=v2&n=2>; rel="next"', '<?last=v3>; rel="next"']
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
    """Other relations are not it, nor is what cannot be read."""
    assert parse_next_page([line]) is None


def test_no_line_is_no_next_page() -> None:
    """The last page has no ``StoredLink``."""
    assert parse_next_page([]) is None


@given(st.lists(st.text() | st.text('<>;?&=,"relnxt ', max_size=60)))
def test_no_line_is_too_odd(lines: list[str]) -> None:
    """Whatever an upstream sends, it is a query or none."""
    query = parse_next_page(lines)
    assert query is None or parse_next_page([format_next_page("/", query)]) in (query, ())


def test_it_names_the_path_that_the_client_asked() -> None:
    """The link has the client's path, which may differ from the upstream's."""
    link = format_next_page("/v2/busybox/tags/list", (("last", "a b&c>"), ("n", "2")))
    path, _, rest = link.removeprefix("<").partition("?")
    assert (path, rest.partition(">")[2]) == ("/v2/busybox/tags/list", '; rel="next"')
    assert parse_qsl(rest.partition(">")[0]) == [("last", "a b&c>"), ("n", "2")]
