"""Media types, and what a client admits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.oci.media import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    EVERYTHING,
    OCI_INDEX,
    OCI_MANIFEST,
    accepts,
    accepts_everything,
    parse_accept,
    parse_media_type,
)


def test_the_kinds_are_those_of_the_specifications() -> None:
    """OCI's two, and the two that Docker had before."""
    assert EVERYTHING == (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "*/*",
    )
    assert EVERYTHING[:4] == (OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST)


@pytest.mark.parametrize(
    ("accept", "admitted"),
    [
        ((), True),
        (("",), True),
        ((OCI_INDEX,), True),
        ((DOCKER_LIST, f"{OCI_MANIFEST}, {OCI_INDEX}"), True),
        ((f"text/html, {OCI_INDEX.upper()} ;q=0.5",), True),
        (("*/*",), True),
        (("application/*",), True),
        ((OCI_MANIFEST, DOCKER_LIST), False),
        ((f"{OCI_INDEX};q=0",), False),
        ((f"{OCI_INDEX}; Q=0.000",), False),
        ((f"{OCI_INDEX};q=0.001",), True),
        (("text/*",), False),
    ],
)
def test_a_client_says_what_it_takes(accept: tuple[str, ...], admitted: bool) -> None:
    """``Accept`` may have one line or several; none accepts everything."""
    assert accepts(accept, OCI_INDEX) is admitted


def test_what_everybody_is_served_is_asked_for_in_full() -> None:
    """All four kinds, and whatever else there is."""
    for media_type in (OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST, "x/y", None):
        assert accepts(EVERYTHING, media_type)
    assert accepts_everything(EVERYTHING)
    assert accepts_everything([])
    assert not accepts_everything([OCI_INDEX, DOCKER_MANIFEST])


@pytest.mark.parametrize(
    "line",
    [
        "a/b", "*/*", "application/vnd.oci.image.index.v1+json, */*;q=0.1", 'a/b; c="d e, \\"f"',
        "a/b;,c/d", "a/b;q=0", "a/b ; c=d ;; e=f , c/d; ; q=1",
        ", ".join(EVERYTHING),
    ],
)  # fmt: skip
def test_media_ranges_are_passed_on(line: str) -> None:
    """RFC 9110, 12.5.1."""
    assert parse_accept([line]) == (line,)


@pytest.mark.parametrize(
    "line", ["", ",", "nonsense", "a/b,", "a/\ufffd", 'a/b;c="', "a/b\0", "a/b c/d", "/", "a/b\n"]
)
def test_other_accept_lines_are_ignored(line: str) -> None:
    assert parse_accept(["a/b", line, "c/d"]) == ("a/b", "c/d")


@pytest.mark.parametrize("gap", ["; ", " ;", " ; ", "\t;\t", ", ", "  "])
def test_a_long_malformed_line_is_rejected_quickly(gap: str) -> None:
    assert parse_accept([f"a/b{gap * 200}\0"]) == ()
    assert parse_media_type(f"a/b{gap * 200}\0") is None


@pytest.mark.parametrize(
    ("text", "passed"),
    [
        ("application/octet-stream", True),
        ('a/b; c="d e"', True),
        ("a/b, c/d", False),
        ("a/\ufffd", False),
        ("", False),
        ("nonsense", False),
        (None, False),
    ],
)
def test_content_type(text: str | None, passed: bool) -> None:
    """One media type with its parameters (RFC 9110, 8.3), or nothing."""
    assert parse_media_type(text) == (text if passed else None)


@given(st.lists(st.text()))
def test_accepted_lines_are_printable(sent: list[str]) -> None:
    for line in parse_accept(sent):
        assert line.isascii()
        assert line.replace("\t", " ").isprintable()
