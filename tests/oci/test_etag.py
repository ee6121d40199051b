"""Entity tags: a content's is its digest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.oci.digest import Digest
from dockmirror.oci.etag import etag_matches, format_etag, parse_if_none_match

from ..values import digests

DIGEST = Digest.of(b"")


def test_it_is_quoted() -> None:
    """RFC 9110, 8.8.3: an entity tag without its quotes is none."""
    assert format_etag(DIGEST) == f'"{DIGEST}"'


@given(digests, st.lists(digests), st.booleans(), st.sampled_from([",", ", ", " , "]))
def test_a_client_that_has_it_is_known(digest: Digest, others: list[Digest], weak: bool, comma: str) -> None:
    """A tag among several matches, also a weak one (13.1.2); others do not."""
    tags = [format_etag(other) for other in others if other != digest]
    assert not etag_matches(comma.join(tags), digest)
    assert etag_matches(comma.join([*tags, ("W/" if weak else "") + format_etag(digest), *tags]), digest)


def test_a_star_is_any() -> None:
    """Whatever there is, the client has it."""
    assert etag_matches("*", DIGEST)


@pytest.mark.parametrize("header", [None, "", '""', ",", "W/", '"latest"', str(DIGEST)[:-1]])
def test_anything_else_is_not_it(header: str | None) -> None:
    """A client that did not ask, or has something else, is sent the content."""
    assert not etag_matches(header, DIGEST)


def test_what_has_no_digest_has_no_tag() -> None:
    """A content of which nothing is known is sent."""
    assert not etag_matches(format_etag(DIGEST), None)


@given(st.text(), digests)
def test_no_header_is_too_odd(header: str, digest: Digest) -> None:
    """Any text is compared without failing."""
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
def test_what_is_passed_on_may_stand_in_a_header(sent: str) -> None:
    """Whatever a client sent; and it is the same when it comes again."""
    parsed = parse_if_none_match(sent)
    assert parsed is None or (parsed.isascii() and parsed.replace("\t", " ").isprintable())
    assert parse_if_none_match(parsed) == parsed
