"""The handshakes with HTTP proxies (RFC 9110, 9.3.6) and SOCKS5 proxies (RFC 1928, RFC 1929)."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.upstream.proxy import Proxy, ProxyError, ProxyHandshake
from dockmirror.upstream.tunnel import connect_handshake, socks5_handshake

HTTP = Proxy("http", "proxy.example", 3128)
HTTP_LOGIN = Proxy("http", "proxy.example", 3128, "us er", "pässword")
SECRETS = ("us er", "pässword", base64.b64encode("us er:pässword".encode()).decode())
REQUEST = b"CONNECT r.example:443 HTTP/1.1\r\nHost: r.example:443\r\n"
HTTP_OPEN = b"HTTP/1.1 200 Connection established\r\n\r\n"


class Talk:
    """A conversation with a proxy, which is the test.

    :ivar rest: the bytes behind the proxy's last message, once the conversation is over.
    """

    def __init__(self, handshake: ProxyHandshake) -> None:
        self._handshake = handshake
        self.rest: bytes | None = None
        self._sent = next(handshake)

    def heard(self) -> bytes:
        """Return the bytes that were sent since the last call."""
        sent, self._sent = self._sent, b""
        return sent

    def answer(self, data: bytes) -> None:
        assert self.rest is None, "the conversation is over"
        try:
            self._sent += self._handshake.send(data)
        except StopIteration as end:
            self.rest = end.value

    def answer_slowly(self, data: bytes) -> None:
        """Answer byte by byte."""
        for byte in data:
            self.answer(bytes([byte]))


def _http_talk(proxy: Proxy = HTTP, host: str = "r.example") -> Talk:
    return Talk(connect_handshake(proxy, host, 443))


def test_an_http_proxy_is_sent_host_port_and_login_only() -> None:
    """The login, if any, is in the first request (RFC 7617); an IPv6 address stands in brackets."""
    assert _http_talk().heard() == REQUEST + b"\r\n"
    assert _http_talk(host="2606:4700::1").heard().startswith(b"CONNECT [2606:4700::1]:443 HTTP/1.1\r\n")
    basic = base64.b64encode("us er:pässword".encode())
    assert _http_talk(HTTP_LOGIN).heard() == REQUEST + b"Proxy-Authorization: Basic " + basic + b"\r\n\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        HTTP_OPEN,
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200\r\n\r\n",
        b"HTTP/1.1 204 \n\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" + HTTP_OPEN,
    ],
)
def test_any_2xx_opens_the_connection(answer: bytes) -> None:
    """The bytes behind its headers belong to the connection."""
    for reply in (Talk.answer, Talk.answer_slowly):
        talk = _http_talk()
        talk.heard()
        reply(talk, answer)
        assert talk.rest == b""
    talk = _http_talk()
    talk.answer(answer + b"\x16\x03")
    assert talk.rest == b"\x16\x03"


@pytest.mark.parametrize(
    ("proxy", "answer", "status", "message"),
    [
        (HTTP, b"HTTP/1.1 403 Filtered\r\n\r\n", 403, "answered 403 Forbidden to CONNECT r.example:443"),
        (HTTP, b"HTTP/1.0 503 Down\r\nX: y\r\n\r\n<html>", 503, "answered 503 Service Unavailable to"),
        (
            HTTP,
            b"HTTP/1.1 407 X\r\n\r\n",
            407,
            "407 Proxy Authentication Required to CONNECT r.example:443: ",
        ),
        (HTTP, b"HTTP/1.1 407 X\r\n\r\n", 407, "it requires a user name and password"),
        (HTTP_LOGIN, f"HTTP/1.1 407 {' '.join(SECRETS)}\r\n\r\n".encode(), 407, "it rejects"),
        (HTTP_LOGIN, b"HTTP/1.1 407 X\r\n\r\n", 407, "it rejects the user name or password"),
        (HTTP_LOGIN, b"HTTP/1.0 401 X\r\n\r\n", 401, "it rejects the user name or password"),
        (HTTP, b"HTTP/1.1 302 Found\r\nLocation: x\r\n\r\n", 302, "answered 302 Found"),
        (HTTP, b"HTTP/1.1 101 Switching Protocols\r\n\r\n", 101, "answered 101 Switching Protocols"),
        (HTTP, b"HTTP/1.1 799 Odd\r\n\r\n", 799, "answered 799 to CONNECT"),
    ],
)
def test_a_refusal_by_an_http_proxy(proxy: Proxy, answer: bytes, status: int, message: str) -> None:
    """Any other status is one; it is described in the specification's words, without an echoed login."""
    talk = _http_talk(proxy)
    with pytest.raises(ProxyError, match=r"^the proxy http://proxy\.example:3128 answered ") as refused:
        talk.answer(answer)
    assert message in str(refused.value)
    assert refused.value.status == status
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
def test_a_peer_that_speaks_no_http_fails_at_once(answer: bytes) -> None:
    for reply in (Talk.answer, Talk.answer_slowly):
        with pytest.raises(ProxyError, match=r"does not speak HTTP/1\.1"):
            reply(_http_talk(), answer)


SOCKS = Proxy("socks5h", "proxy.example", 1080)
SOCKS_LOGIN = Proxy("socks5h", "proxy.example", 1080, "user", "pässword")
NAMED = b"\x05\x01\x00\x03\x09r.example\x01\xbb"
SOCKS_OPEN = b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"


def _socks_talk(proxy: Proxy = SOCKS, host: str = "r.example") -> Talk:
    return Talk(socks5_handshake(proxy, host, 443))


@pytest.mark.parametrize("reply", [Talk.answer, Talk.answer_slowly])
@pytest.mark.parametrize("bound", [b"\x01\x7f\x00\x00\x01", b"\x03\x05proxy", b"\x04" + bytes(16)])
def test_a_socks_proxy_is_sent_the_name(reply: Callable[[Talk, bytes], None], bound: bytes) -> None:
    """Its own address in the reply may be of any kind; bytes behind it belong to the connection."""
    for proxy, methods in ((SOCKS, b"\x05\x01\x00"), (SOCKS_LOGIN, b"\x05\x02\x00\x02")):
        talk = _socks_talk(proxy)
        assert talk.heard() == methods
        reply(talk, b"\x05\x00")
        assert talk.heard() == NAMED
        reply(talk, b"\x05\x00\x00" + bound + b"\x04\x38")
        assert talk.rest == b""
    talk = _socks_talk()
    talk.answer(b"\x05\x00")
    talk.answer(b"\x05\x00\x00" + bound + b"\x04\x38\x16\x03")
    assert talk.rest == b"\x16\x03"


@pytest.mark.parametrize("reply", [Talk.answer, Talk.answer_slowly])
def test_a_socks_proxy_is_sent_its_login_where_it_asks(reply: Callable[[Talk, bytes], None]) -> None:
    talk = _socks_talk(SOCKS_LOGIN)
    talk.heard()
    reply(talk, b"\x05\x02")
    assert talk.heard() == b"\x01\x04user\x09" + "pässword".encode()
    reply(talk, b"\x01\x00")
    assert talk.heard() == NAMED
    reply(talk, SOCKS_OPEN)
    assert talk.rest == b""


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("8.8.4.4", b"\x01\x08\x08\x04\x04"),
        ("2606:4700::1", b"\x04\x26\x06\x47\x00" + bytes(11) + b"\x01"),
        ("x" * 255, b"\x03\xff" + b"x" * 255),
    ],
)
def test_an_address_is_sent_as_an_address(host: str, message: bytes) -> None:
    talk = _socks_talk(host=host)
    talk.heard()
    talk.answer(b"\x05\x00")
    assert talk.heard() == b"\x05\x01\x00" + message + b"\x01\xbb"


def test_a_name_too_long_for_socks_is_refused_at_once() -> None:
    with pytest.raises(ProxyError, match="no host name of more than 255 bytes"):
        _socks_talk(host="x" * 256)


@pytest.mark.parametrize(
    ("proxy", "answers", "message"),
    [
        (SOCKS, [b"\x05\xff"], "requires a user name and password"),
        (SOCKS, [b"\x05\x02"], "requires a user name and password"),
        (SOCKS_LOGIN, [b"\x05\xff"], "requires an unsupported login method"),
        (SOCKS_LOGIN, [b"\x05\x01"], "requires an unsupported login method"),
        (SOCKS_LOGIN, [b"\x05\x02", b"\x01\x01"], "rejects the user name or password"),
        (SOCKS, [b"\x05\x00", b"\x05\x05"], 'answered "connection refused" to the request for r.example:443'),
        (SOCKS, [b"\x05\x00", b"\x05\x02"], 'answered "connection not allowed by ruleset"'),
        (SOCKS, [b"\x05\x00", b"\x05\x63"], 'answered "failure 99"'),
        (SOCKS, [b"\x04\x00"], "does not speak SOCKS5"),
        (SOCKS, [b"HTTP/1.1 400 Bad Request"], "does not speak SOCKS5"),
        (SOCKS, [b"\x05\x00", b"\x04\x00"], "does not speak SOCKS5"),
        (SOCKS, [b"\x05\x00", b"\x05\x00\x00\x02"], "does not speak SOCKS5"),
    ],
)
def test_a_refusal_by_a_socks_proxy(proxy: Proxy, answers: list[bytes], message: str) -> None:
    """It is described in the specification's words as soon as it arrives."""
    talk = _socks_talk(proxy)
    *before, last = answers
    for answer in before:
        talk.answer(answer)
    with pytest.raises(ProxyError, match=r"^the proxy socks5h://proxy\.example:1080 ") as refused:
        talk.answer(last)
    assert message in str(refused.value)
    assert refused.value.status is None


PIECES = [
    b"HTTP/1.1 ",
    b"200",
    b"100",
    b"407",
    b"\r\n",
    b"\n\n",
    b"\x05\x00",
    b"\x05\x02",
    b"\x01\x00",
    SOCKS_OPEN,
]


@given(st.lists(st.sampled_from(PIECES) | st.binary()))
def test_any_answer_of_a_proxy(answers: list[bytes]) -> None:
    """Any bytes open the connection, refuse it, or wait for more; no error holds the login."""
    for talk in (_http_talk(HTTP_LOGIN), _socks_talk(SOCKS_LOGIN)):
        try:
            for answer in answers:
                if talk.rest is None:
                    talk.answer(answer)
        except ProxyError as error:
            assert not any(secret in str(error) for secret in SECRETS)  # noqa: PT017
