"""What a client has sent and nobody has used yet."""

from __future__ import annotations

import pytest

from dockmirror.http.head_buffer import HeadBuffer
from dockmirror.oci.errors import RegistryError

HEAD = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


def test_heads_and_what_lies_between_them() -> None:
    """Each is taken by itself, the empty lines before it apart."""
    received = HeadBuffer(100)
    received.add(b"\r\n" + HEAD + b"body")
    assert received.take_head() == HEAD
    assert (len(received), received.take(), len(received)) == (4, b"body", 0)
    received.put_back(HEAD)
    assert received.take_head() == HEAD


def test_a_head_in_pieces() -> None:
    """Has begun from its first byte on, and until its last; an empty line is none of it."""
    received = HeadBuffer(100)
    received.add(b"\r\n")
    assert (received.take_head(), received.head_begun) == (None, False)
    for place in range(len(HEAD) - 1):
        received.add(HEAD[place : place + 1])
        assert (received.take_head(), received.head_begun) == (None, True)
    received.add(HEAD[-1:])
    assert (received.take_head(), received.head_begun) == (HEAD, False)


def test_a_head_that_is_too_large() -> None:
    """Is one of which nothing more need come."""
    received = HeadBuffer(len(HEAD) - 1)
    received.add(HEAD)
    with pytest.raises(RegistryError, match="larger than"):
        received.take_head()
