"""Heads of requests as bytes: where they end, what is refused, what becomes of an absolute-form target."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.http.head_parser import end_of_head, origin_form
from dockmirror.oci.errors import RegistryError

HEAD = b"GET /v2/ HTTP/1.1\r\nHost: h\r\n\r\n"
LIMIT = 256


def refused(line: bytes, *fields: bytes) -> int:
    """The status that a head is refused with."""
    with pytest.raises(RegistryError) as caught:
        origin_form(b"\r\n".join([line, *fields, b"", b""]))
    return caught.value.status


def test_the_end_is_after_the_empty_line() -> None:
    """What follows the head does not belong to it."""
    assert end_of_head(bytearray(HEAD + b"\x00body"), 0, LIMIT) == len(HEAD)


def test_an_incomplete_head_has_no_end() -> None:
    """Not even when only the last byte is missing, and a lone CR is the beginning of a line's end."""
    assert end_of_head(bytearray(HEAD[:-1]), 0, LIMIT) is None


def test_the_limit_counts_every_byte() -> None:
    """A head may be as large as the limit, and not one byte larger."""
    assert end_of_head(bytearray(HEAD), 0, len(HEAD)) == len(HEAD)
    with pytest.raises(RegistryError) as caught:
        end_of_head(bytearray(HEAD), 0, len(HEAD) - 1)
    assert caught.value.status == 431


@pytest.mark.parametrize("control", [b"\x00", b"\x16\x03\x01", b"\r", b"\n", b"\x7f", b"\x1b"])
def test_control_characters_are_refused_where_they_stand(control: bytes) -> None:
    """Before the head is complete: a bare CR or LF, NUL, or the first byte of a TLS hello."""
    with pytest.raises(RegistryError) as caught:
        end_of_head(bytearray(b"GET /" + control + b"x"), 0, LIMIT)
    assert caught.value.status == 400


def outcome(received: bytes, step: int) -> object:
    """What becomes of bytes that arrive in pieces of one size."""
    scanned = 0
    for arrived in range(step, len(received) + step, step):
        seen = received[:arrived]
        try:
            end = end_of_head(bytearray(seen), scanned, 32)
        except RegistryError as error:
            return error.status
        if end is not None:
            return end
        scanned = len(seen)
    return None


@given(
    st.lists(st.sampled_from([b"G", b"\r\n", b"\r", b"\n", b"\x00", b"\r\n\r\n", b"abcdefgh"])).map(b"".join)
)
def test_pieces_make_no_difference(received: bytes) -> None:
    """Looking only at what is new finds what looking at all of it finds."""
    assert {outcome(received, step) for step in (1, 2, 3, 7)} <= {outcome(received, len(received) or 1)}


def test_origin_form_stays_as_it_is() -> None:
    """Nothing is rewritten where nothing must be."""
    assert origin_form(HEAD) == HEAD


@pytest.mark.parametrize(
    ("target", "path", "host"),
    [
        (b"http://r.example/v2/?a=b", b"/v2/?a=b", b"r.example"),
        (b"HTTPS://r.example:5000", b"/", b"r.example:5000"),
        (b"http://[::1]:80?q", b"/?q", b"[::1]:80"),
    ],
)
def test_absolute_form_names_the_host(target: bytes, path: bytes, host: bytes) -> None:
    """The authority of the target takes the place of what Host says (RFC 9112 section 3.2.2)."""
    head = origin_form(b"GET %b HTTP/1.1\r\nA: 1\r\nhOsT: other\r\nB: 2\r\n\r\n" % target)
    assert head == b"GET %b HTTP/1.1\r\nHost: %b\r\nA: 1\r\nB: 2\r\n\r\n" % (path, host)


@pytest.mark.parametrize(
    "target",
    [
        b"*",
        b"h:443",
        b"http://",
        b"http:///v2/",
        b"http://:80/",
        b"http://u@h/",
        b"ftp://h/",
        b"v2",
        b"/\xc3\xbc",
        b"/\x80",
    ],
)
def test_other_targets_are_refused(target: bytes) -> None:
    """Authority-form, asterisk-form, other schemes, user names, and bytes outside ASCII."""
    assert refused(b"GET %b HTTP/1.1" % target, b"Host: h") == 400


@pytest.mark.parametrize("line", [b"GET /", b"GET  / HTTP/1.1", b"GET / HTTP/1.1 x", b""])
def test_a_request_line_has_three_parts(line: bytes) -> None:
    """With one space between them."""
    assert refused(line, b"Host: h") == 400


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [b"Host: a", b"host: a"],
        [b"Host: a, b"],
        [b"Host: a/b"],
        [b"Host: u@a"],
        [b"Host: a", b"A: 1", b" folded"],
        [b"\tfolded", b"Host: a"],
        [b"Host: a", b"Transfer-Encoding: identity"],
        [b"Host: a", b"Transfer-Encoding: gzip, chunked"],
        [b"Host: a", b"Content-Length: +1"],
        [b"Host: a", b"Content-Length: 1, 1"],
        [b"Host: a", b"Content-Length: " + b"1" * 5000],
    ],
)
def test_fields_that_could_be_understood_in_two_ways_are_refused(fields: list[bytes]) -> None:
    """Hosts that are missing, doubled or no host; folded lines; codings and lengths of another kind."""
    assert refused(b"GET / HTTP/1.1", *fields) == 400


def test_http_1_0_needs_no_host_and_knows_no_coding() -> None:
    """RFC 9112 section 6.1: a coding in HTTP/1.0 is faulty framing."""
    head = b"GET / HTTP/1.0\r\n\r\n"
    assert origin_form(head) == head
    assert refused(b"POST / HTTP/1.0", b"Transfer-Encoding: chunked") == 400
