"""The handshakes with HTTP proxies (RFC 9110, 9.3.6) and SOCKS5 proxies (RFC 1928, RFC 1929)."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.upstream.proxy import Proxy, ProxyError, ProxyHandshake
from dockmirror.upstream.tunnel import connect_handshake, socks5_handshake

HTTP = Proxy("http", "proxy.example", 3128)
HTTP_LOGIN = Proxy("http", "proxy.example", 3128, "us er", "pässword")
SOCKS = Proxy("socks5h", "proxy.example", 1080)
SOCKS_LOGIN = Proxy("socks5h", "proxy.example", 1080, "user", "pässword")
BASIC = base64.b64encode("us er:pässword".encode())
SECRETS = ("us er", "pässword", BASIC.decode())
REQUEST = b"CONNECT r.example:443 HTTP/1.1\r\nHost: r.example:443\r\n"
HTTP_OPEN = b"HTTP/1.1 200 Connection established\r\n\r\n"
NAMED = b"\x05\x01\x00\x03\x09r.example\x01\xbb"
SOCKS_OPEN = b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"
slowly = pytest.mark.parametrize("slowly", [False, True])


def start(proxy: Proxy, host: str = "r.example") -> ProxyHandshake:
    handshake = connect_handshake if proxy.scheme == "http" else socks5_handshake
    return handshake(proxy, host, 443)


def converse(
    handshake: ProxyHandshake, *answers: bytes, slowly: bool = False
) -> tuple[list[bytes], bytes | None]:
    """Return the messages to the proxy, and the bytes behind its last answer if it opened the connection.

    :param slowly: whether the answers come byte by byte.
    """
    sent = [next(handshake)]
    for answer in answers:
        for piece in [answer[i : i + 1] for i in range(len(answer))] if slowly else [answer]:
            try:
                sent.append(handshake.send(piece))
            except StopIteration as end:
                return list(filter(None, sent)), end.value
    return list(filter(None, sent)), None


def test_an_http_proxy_is_sent_host_port_and_login_only() -> None:
    """The login, if any, is in the first request (RFC 7617); an IPv6 address stands in brackets."""
    assert converse(start(HTTP)) == ([REQUEST + b"\r\n"], None)
    ((request,), _) = converse(start(HTTP, "2606:4700::1"))
    assert request.startswith(b"CONNECT [2606:4700::1]:443 HTTP/1.1\r\n")
    login = REQUEST + b"Proxy-Authorization: Basic " + BASIC + b"\r\n\r\n"
    assert converse(start(HTTP_LOGIN)) == ([login], None)


@slowly
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
def test_any_2xx_opens_the_connection(answer: bytes, slowly: bool) -> None:
    """The bytes behind its headers belong to the connection."""
    assert converse(start(HTTP), answer, slowly=slowly)[1] == b""
    assert converse(start(HTTP), answer + b"\x16\x03")[1] == b"\x16\x03"


@pytest.mark.parametrize(
    ("proxy", "answer", "status", "message"),
    [
        (HTTP, b"HTTP/1.1 403 Filtered\r\n\r\n", 403, "answered 403 Forbidden to CONNECT r.example:443"),
        (HTTP, b"HTTP/1.0 503 Down\r\nX: y\r\n\r\n<html>", 503, "answered 503 Service Unavailable to"),
        (HTTP, b"HTTP/1.1 407 X\r\n\r\n", 407, "407 Proxy Authentication Required to CONNECT r.example:443:"),
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
    with pytest.raises(ProxyError, match=r"^the proxy http://proxy\.example:3128 answered ") as refused:
        converse(start(proxy), answer)
    assert message in str(refused.value)
    assert refused.value.status == status
    assert not any(secret in str(refused.value) for secret in SECRETS)


@slowly
@pytest.mark.parametrize(
    "line", [b"\x05\xff", b"SSH-2.0-x", b"HTTP/2 200", b"HTTP/1.1 2000 OK", b"HTTP/1.1 OK"]
)
def test_a_peer_that_speaks_no_http_fails_at_once(line: bytes, slowly: bool) -> None:
    with pytest.raises(ProxyError, match=r"does not speak HTTP/1\.1"):
        converse(start(HTTP), line + b"\r\n\r\n", slowly=slowly)


@slowly
@pytest.mark.parametrize("bound", [b"\x01\x7f\x00\x00\x01", b"\x03\x05proxy", b"\x04" + bytes(16)])
def test_a_socks_proxy_is_sent_the_name(bound: bytes, slowly: bool) -> None:
    """Its own address in the reply may be of any kind; bytes behind it belong to the connection."""
    reply = b"\x05\x00\x00" + bound + b"\x04\x38"
    for proxy, methods in ((SOCKS, b"\x05\x01\x00"), (SOCKS_LOGIN, b"\x05\x02\x00\x02")):
        assert converse(start(proxy), b"\x05\x00", reply, slowly=slowly) == ([methods, NAMED], b"")
    assert converse(start(SOCKS), b"\x05\x00", reply + b"\x16\x03")[1] == b"\x16\x03"


@slowly
def test_a_socks_proxy_is_sent_its_login_where_it_asks(slowly: bool) -> None:
    sent, rest = converse(start(SOCKS_LOGIN), b"\x05\x02", b"\x01\x00", SOCKS_OPEN, slowly=slowly)
    assert sent[1:] == [b"\x01\x04user\x09" + "pässword".encode(), NAMED]
    assert rest == b""


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("8.8.4.4", b"\x01\x08\x08\x04\x04"),
        ("2606:4700::1", b"\x04\x26\x06\x47\x00" + bytes(11) + b"\x01"),
        ("x" * 255, b"\x03\xff" + b"x" * 255),
    ],
)
def test_an_address_is_sent_as_an_address(host: str, address: bytes) -> None:
    """A name that is too long is refused at once."""
    assert converse(start(SOCKS, host), b"\x05\x00")[0][-1] == b"\x05\x01\x00" + address + b"\x01\xbb"
    with pytest.raises(ProxyError, match="no host name of more than 255 bytes"):
        converse(start(SOCKS, "x" * 256))


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
    with pytest.raises(ProxyError, match=r"^the proxy socks5h://proxy\.example:1080 ") as refused:
        converse(start(proxy), *answers)
    assert message in str(refused.value)
    assert refused.value.status is None


PIECES = [b"HTTP/1.1 ", b"200", b"407", b"\r\n", b"\n\n", b"\x05\x00", b"\x05\x02", b"\x01\x00", SOCKS_OPEN]


@given(st.lists(st.sampled_from(PIECES) | st.binary()))
def test_any_answer_of_a_proxy(answers: list[bytes]) -> None:
    """Any bytes open the connection, refuse it, or wait for more; no error holds the login."""
    for proxy in (HTTP_LOGIN, SOCKS_LOGIN):
        try:
            converse(start(proxy), *answers)
        except ProxyError as error:
            assert not any(secret in str(error) for secret in SECRETS)  # noqa: PT017
