"""What is said to an HTTP proxy (RFC 9110, 9.3.6)."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.upstream.http_proxy import handshake
from dockmirror.upstream.proxy import Proxy, ProxyError
from tests.openings import Talk

PLAIN = Proxy("http", "proxy.example", 3128)
LOGIN = Proxy("http", "proxy.example", 3128, "us er", "pässword")
SECRETS = ("us er", "pässword", base64.b64encode("us er:pässword".encode()).decode())
REQUEST = b"CONNECT r.example:443 HTTP/1.1\r\nHost: r.example:443\r\n"
OPEN = b"HTTP/1.1 200 Connection established\r\n\r\n"


def _talk(proxy: Proxy = PLAIN, host: str = "r.example") -> Talk:
    return Talk(handshake(proxy, host, 443))


def test_request() -> None:
    """The proxy is told host and port, and nothing about the mirror."""
    assert _talk().heard() == REQUEST + b"\r\n"


def test_address() -> None:
    """An IPv6 address stands in brackets."""
    assert _talk(host="2606:4700::1").heard().startswith(b"CONNECT [2606:4700::1]:443 HTTP/1.1\r\n")


def test_login() -> None:
    """A proxy with a login is told it at once (RFC 7617)."""
    basic = base64.b64encode("us er:pässword".encode())
    assert _talk(LOGIN).heard() == REQUEST + b"Proxy-Authorization: Basic " + basic + b"\r\n\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        OPEN,
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200\r\n\r\n",
        b"HTTP/1.1 204 \n\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" + OPEN,
    ],
)
def test_open(answer: bytes) -> None:
    """Any 2xx opens the connection, whatever its headers say; what follows them belongs to the connection."""
    for said in (Talk.answer, Talk.answer_slowly):
        talk = _talk()
        talk.heard()
        said(talk, answer)
        assert talk.rest == b""
    talk = _talk()
    talk.answer(answer + b"\x16\x03")
    assert talk.rest == b"\x16\x03"


@pytest.mark.parametrize(
    ("proxy", "answer", "status", "told"),
    [
        (PLAIN, b"HTTP/1.1 403 Filtered\r\n\r\n", 403, "answered 403 Forbidden to CONNECT r.example:443"),
        (
            PLAIN,
            b"HTTP/1.0 503 Service Unavailable\r\nX: y\r\n\r\n<html>",
            503,
            "answered 503 Service Unavail",
        ),
        (
            PLAIN,
            b"HTTP/1.1 407 X\r\n\r\n",
            407,
            "407 Proxy Authentication Required to CONNECT r.example:443: it",
        ),
        (PLAIN, b"HTTP/1.1 407 X\r\n\r\n", 407, "it wants a name and a password"),
        (LOGIN, b"HTTP/1.1 407 X\r\n\r\n", 407, "it refuses the name or the password"),
        (LOGIN, b"HTTP/1.0 401 X\r\n\r\n", 401, "it refuses the name or the password"),
        (PLAIN, b"HTTP/1.1 302 Found\r\nLocation: x\r\n\r\n", 302, "answered 302 Found"),
        (PLAIN, b"HTTP/1.1 101 Switching Protocols\r\n\r\n", 101, "answered 101 Switching Protocols"),
        (PLAIN, b"HTTP/1.1 799 Odd\r\n\r\n", 799, "answered 799 to CONNECT"),
    ],
)
def test_refused(proxy: Proxy, answer: bytes, status: int, told: str) -> None:
    """Any other status is a refusal, told in the specification's words."""
    talk = _talk(proxy)
    with pytest.raises(ProxyError, match=r"^the proxy http://proxy\.example:3128 answered ") as refused:
        talk.answer(answer)
    assert told in str(refused.value)
    assert refused.value.status == status


def test_echo() -> None:
    """A proxy that repeats the login in its answer does not bring it into the error."""
    talk = _talk(LOGIN)
    with pytest.raises(ProxyError) as refused:
        talk.answer(f"HTTP/1.1 407 {' '.join(SECRETS)}\r\n\r\n".encode())
    assert not any(secret in str(refused.value) for secret in SECRETS)


@pytest.mark.parametrize(
    "answer",
    [
        b"\x05\xff",
        b"SSH-2.0-x\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
    ],
)
def test_not_http(answer: bytes) -> None:
    """What does not speak HTTP/1.1 is found out as soon as can be."""
    for said in (Talk.answer, Talk.answer_slowly):
        with pytest.raises(ProxyError, match=r"does not speak HTTP/1\.1"):
            said(_talk(), answer)


@given(st.lists(st.sampled_from([b"HTTP/1.1 ", b"200", b"100", b"407", b"\r\n", b"\n\n"]) | st.binary()))
def test_any_answer(answers: list[bytes]) -> None:
    """Whatever a proxy says opens a connection, is refused, or leaves it waiting for more."""
    talk = _talk(LOGIN)
    try:
        for answer in answers:
            if talk.rest is None:
                talk.answer(answer)
    except ProxyError as error:
        assert not any(secret in str(error) for secret in SECRETS)  # noqa: PT017
