"""What is said to a SOCKS5 proxy (RFC 1928, RFC 1929)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.upstream.proxy import Proxy, ProxyError
from dockmirror.upstream.socks import handshake
from tests.openings import Talk

PLAIN = Proxy("socks5h", "proxy.example", 1080)
LOGIN = Proxy("socks5h", "proxy.example", 1080, "user", "pässword")
NAMED = b"\x05\x01\x00\x03\x09r.example\x01\xbb"
OPEN = b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"


def _talk(proxy: Proxy = PLAIN, host: str = "r.example") -> Talk:
    return Talk(handshake(proxy, host, 443))


@pytest.mark.parametrize("said", [Talk.answer, Talk.answer_slowly])
def test_without_login(said: Callable[[Talk, bytes], None]) -> None:
    """A proxy that asks nobody is told the name at once; it answers with its own address, of any kind."""
    for bound in (b"\x01\x7f\x00\x00\x01", b"\x03\x05proxy", b"\x04" + bytes(16)):
        talk = _talk()
        assert talk.heard() == b"\x05\x01\x00"
        said(talk, b"\x05\x00")
        assert talk.heard() == NAMED
        said(talk, b"\x05\x00\x00" + bound + b"\x04\x38")
        assert talk.rest == b""


@pytest.mark.parametrize("said", [Talk.answer, Talk.answer_slowly])
def test_login(said: Callable[[Talk, bytes], None]) -> None:
    """The login is said only to a proxy that asks for it."""
    talk = _talk(LOGIN)
    assert talk.heard() == b"\x05\x02\x00\x02"
    said(talk, b"\x05\x02")
    assert talk.heard() == b"\x01\x04user\x09" + "pässword".encode()
    said(talk, b"\x01\x00")
    assert talk.heard() == NAMED
    said(talk, OPEN)
    assert talk.rest == b""


def test_login_not_asked_for() -> None:
    """A proxy that does not ask never hears the login."""
    talk = _talk(LOGIN)
    talk.heard()
    talk.answer(b"\x05\x00")
    assert talk.heard() == NAMED


@pytest.mark.parametrize(
    ("host", "told"),
    [
        ("8.8.4.4", b"\x01\x08\x08\x04\x04"),
        ("2606:4700::1", b"\x04\x26\x06\x47\x00" + bytes(11) + b"\x01"),
        ("x" * 255, b"\x03\xff" + b"x" * 255),
    ],
)
def test_addresses(host: str, told: bytes) -> None:
    """What is an address is told as one."""
    talk = _talk(host=host)
    talk.heard()
    talk.answer(b"\x05\x00")
    assert talk.heard() == b"\x05\x01\x00" + told + b"\x01\xbb"


def test_long_name() -> None:
    """A name that SOCKS has no room for is refused before anything is said."""
    with pytest.raises(ProxyError, match="no name of more than 255 bytes"):
        _talk(host="x" * 256)


def test_rest() -> None:
    """What comes after the answer belongs to the connection."""
    talk = _talk()
    talk.answer(b"\x05\x00")
    talk.answer(OPEN + b"\x16\x03")
    assert talk.rest == b"\x16\x03"


@pytest.mark.parametrize(
    ("proxy", "answers", "told"),
    [
        (PLAIN, [b"\x05\xff"], "wants a name and a password"),
        (PLAIN, [b"\x05\x02"], "wants a name and a password"),
        (LOGIN, [b"\x05\xff"], "wants another kind of login"),
        (LOGIN, [b"\x05\x01"], "wants another kind of login"),
        (LOGIN, [b"\x05\x02", b"\x01\x01"], "refuses the name or the password"),
        (PLAIN, [b"\x05\x00", b"\x05\x05"], 'answered "connection refused" to the request for r.example:443'),
        (PLAIN, [b"\x05\x00", b"\x05\x02"], 'answered "connection not allowed by ruleset"'),
        (PLAIN, [b"\x05\x00", b"\x05\x63"], 'answered "failure 99"'),
        (PLAIN, [b"\x04\x00"], "does not speak SOCKS5"),
        (PLAIN, [b"HTTP/1.1 400 Bad Request"], "does not speak SOCKS5"),
        (PLAIN, [b"\x05\x00", b"\x04\x00"], "does not speak SOCKS5"),
        (PLAIN, [b"\x05\x00", b"\x05\x00\x00\x02"], "does not speak SOCKS5"),
    ],
)
def test_refused(proxy: Proxy, answers: list[bytes], told: str) -> None:
    """A refusal is told as soon as it is there, in the specification's words."""
    talk = _talk(proxy)
    *before, last = answers
    for answer in before:
        talk.answer(answer)
    with pytest.raises(ProxyError, match=r"^the proxy socks5h://proxy\.example:1080 ") as refused:
        talk.answer(last)
    assert told in str(refused.value)
    assert refused.value.status is None


@given(st.lists(st.sampled_from([b"\x05\x00", b"\x05\x02", b"\x01\x00", OPEN]) | st.binary()))
def test_any_answer(answers: list[bytes]) -> None:
    """Whatever a proxy says opens a connection, is refused, or leaves it waiting for more."""
    talk = _talk(LOGIN)
    try:
        for answer in answers:
            if talk.rest is None:
                talk.answer(answer)
    except ProxyError as error:
        assert "pässword" not in str(error)  # noqa: PT017
