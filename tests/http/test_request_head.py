"""Request heads as bytes: their end, invalid ones, absolute-form targets."""

from __future__ import annotations

import pytest

from dockmirror.http.request_reader import HeadBuffer, find_head_end, to_origin_form
from dockmirror.oci.errors import RegistryError

HEAD = b"GET /v2/ HTTP/1.1\r\nHost: h\r\n\r\n"
SHORT_HEAD = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
LIMIT = 256


def refused(line: bytes, *fields: bytes) -> int:
    """Return the status that a head is refused with."""
    with pytest.raises(RegistryError) as caught:
        to_origin_form(b"\r\n".join([line, *fields, b"", b""]))
    return caught.value.status


def test_a_head_ends_after_the_empty_line() -> None:
    """A lone CR at the end may be the beginning of a line's end."""
    assert find_head_end(bytearray(HEAD + b"\x00body"), 0, LIMIT) == len(HEAD)
    assert find_head_end(bytearray(HEAD[:-1]), 0, LIMIT) is None


def test_a_head_may_be_as_large_as_the_limit_and_no_larger() -> None:
    assert find_head_end(bytearray(HEAD), 0, len(HEAD)) == len(HEAD)
    with pytest.raises(RegistryError) as caught:
        find_head_end(bytearray(HEAD), 0, len(HEAD) - 1)
    assert caught.value.status == 431
    received = HeadBuffer(len(SHORT_HEAD) - 1)
    received.add(SHORT_HEAD)
    with pytest.raises(RegistryError, match="larger than"):
        received.take_head()


@pytest.mark.parametrize("control", [b"\x00", b"\x16\x03\x01", b"\r", b"\n", b"\x7f", b"\x1b"])
def test_control_characters_are_refused_at_once(control: bytes) -> None:
    """A bare CR or LF, NUL, or the first byte of a TLS hello, in an incomplete head too."""
    with pytest.raises(RegistryError) as caught:
        find_head_end(bytearray(b"GET /" + control + b"x"), 0, LIMIT)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("target", "path", "host"),
    [
        (b"http://r.example/v2/?a=b", b"/v2/?a=b", b"r.example"),
        (b"HTTPS://r.example:5000", b"/", b"r.example:5000"),
        (b"http://[::1]:80?q", b"/?q", b"[::1]:80"),
    ],
)
def test_the_authority_of_an_absolute_form_replaces_host(target: bytes, path: bytes, host: bytes) -> None:
    """RFC 9112 section 3.2.2; a head in origin form is unchanged."""
    assert to_origin_form(HEAD) == HEAD
    head = to_origin_form(b"GET %b HTTP/1.1\r\nA: 1\r\nhOsT: other\r\nB: 2\r\n\r\n" % target)
    assert head == b"GET %b HTTP/1.1\r\nHost: %b\r\nA: 1\r\nB: 2\r\n\r\n" % (path, host)


@pytest.mark.parametrize(
    "target",
    [
        *(b"*", b"h:443", b"http://", b"http:///v2/", b"http://:80/", b"http://u@h/", b"ftp://h/", b"v2"),
        *(b"/\xc3\xbc", b"/\x80"),
    ],
)
def test_other_targets_are_refused(target: bytes) -> None:
    """Authority-form, asterisk-form, other schemes, user names, and bytes outside ASCII."""
    assert refused(b"GET %b HTTP/1.1" % target, b"Host: h") == 400


@pytest.mark.parametrize("line", [b"GET /", b"GET  / HTTP/1.1", b"GET / HTTP/1.1 x", b""])
def test_a_request_line_has_three_parts(line: bytes) -> None:
    """They are separated by single spaces."""
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
def test_ambiguous_fields_are_refused(fields: list[bytes]) -> None:
    """Missing, repeated or invalid hosts; folded lines; unknown codings and lengths."""
    assert refused(b"GET / HTTP/1.1", *fields) == 400


def test_http_1_0_needs_no_host_and_knows_no_coding() -> None:
    """RFC 9112 section 6.1: a coding in HTTP/1.0 is faulty framing."""
    head = b"GET / HTTP/1.0\r\n\r\n"
    assert to_origin_form(head) == head
    assert refused(b"POST / HTTP/1.0", b"Transfer-Encoding: chunked") == 400


def test_heads_and_the_bytes_between_them_are_taken_separately() -> None:
    """Empty lines before a head are ignored."""
    received = HeadBuffer(100)
    received.add(b"\r\n" + SHORT_HEAD + b"body")
    assert received.take_head() == SHORT_HEAD
    assert (len(received), received.take(), len(received)) == (4, b"body", 0)
    received.put_back(SHORT_HEAD)
    assert received.take_head() == SHORT_HEAD


def test_a_head_in_pieces_is_partial_until_its_last_byte() -> None:
    """An empty line does not begin one."""
    received = HeadBuffer(100)
    received.add(b"\r\n")
    assert (received.take_head(), received.has_partial_head) == (None, False)
    for place in range(len(SHORT_HEAD) - 1):
        received.add(SHORT_HEAD[place : place + 1])
        assert (received.take_head(), received.has_partial_head) == (None, True)
    received.add(SHORT_HEAD[-1:])
    assert (received.take_head(), received.has_partial_head) == (SHORT_HEAD, False)
