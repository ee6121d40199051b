"""Proxies as they are written."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dockmirror.upstream.proxy import Proxy, ProxyError, authority

SECRET = "hidden"  # noqa: S105
printable = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=40)
ports = st.integers(1, 65535)


@pytest.mark.parametrize(
    ("text", "proxy"),
    [
        ("http://proxy.example:3128", Proxy("http", "proxy.example", 3128)),
        ("http://proxy.example:3128/", Proxy("http", "proxy.example", 3128)),
        ("HTTP://Proxy.Example:3128", Proxy("http", "proxy.example", 3128)),
        ("proxy.example:3128", Proxy("http", "proxy.example", 3128)),
        ("proxy", Proxy("http", "proxy", 80)),
        ("https://proxy.example", Proxy("https", "proxy.example", 443)),
        ("socks5://10.0.0.1", Proxy("socks5", "10.0.0.1", 1080)),
        ("socks5h://[fd00::1]:9050", Proxy("socks5h", "fd00::1", 9050)),
        ("http://user:pass@proxy.example:3128", Proxy("http", "proxy.example", 3128, "user", "pass")),
        ("user:pass@proxy.example:3128", Proxy("http", "proxy.example", 3128, "user", "pass")),
        ("http://user@proxy.example:3128", Proxy("http", "proxy.example", 3128, "user", "")),
        ("http://:pass@proxy.example:3128", Proxy("http", "proxy.example", 3128, "", "pass")),
        ("http://@proxy.example:3128", Proxy("http", "proxy.example", 3128)),
        ("http://a@b.example:p@ss@proxy.example", Proxy("http", "proxy.example", 80, "a@b.example", "p@ss")),
        ("http://u%20ser:p%3A%2F%40%C3%A4@p.example", Proxy("http", "p.example", 80, "u ser", "p:/@ä")),
        ("socks5h://a%3Ab:c:d@p.example", Proxy("socks5h", "p.example", 1080, "a:b", "c:d")),
        ("socks5h://user@p.example", Proxy("socks5h", "p.example", 1080, "user", "")),
    ],
)
def test_parse(text: str, proxy: Proxy) -> None:
    """A URL names scheme, host, port and login; most of it may be left out."""
    assert Proxy.parse(text) == proxy


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "a proxy such as"),
        ("http://", "a proxy such as"),
        (f"http://u:{SECRET}@", "a proxy such as"),
        (f"http://u:{SECRET}@proxy.example:port", "a proxy such as"),
        (f"http://u:{SECRET}@proxy.example/path", "a proxy such as"),
        (f"http://u:{SECRET}@proxy.example?query", "a proxy such as"),
        (f"http://u:{SECRET}/x@proxy.example", "a proxy such as"),
        (f"http://u:{SECRET} @proxy.example", "a proxy such as"),
        (f"http://u:{SECRET}@proxy.example\n", "a proxy such as"),
        (f"http://u:{SECRET}@prøxy.example", "a proxy such as"),
        (f"http://u:{SECRET}@[fe80::1%eth0]:80", "a proxy such as"),
        (f"http://u:{SECRET}@[1.2.3.4]:80", "a name or an address"),
        (f"http://u:{SECRET}@[:::]:80", "a name or an address"),
        (f"http://u:{SECRET}@proxy.example:0", "between 1 and 65535"),
        (f"http://u:{SECRET}@proxy.example:65536", "between 1 and 65535"),
        (f"socks4://u:{SECRET}@proxy.example", "one of http, https, socks5, socks5h"),
        (f"://u:{SECRET}@proxy.example", "a proxy such as"),
        (f"http://u:{SECRET}%FF@proxy.example", "UTF-8"),
        (f"http://u:{SECRET}%0D%0AHost%3A%20x@proxy.example", "without control characters"),
        (f"http://a%3Ab:{SECRET}@proxy.example", "without a colon"),
        (f"socks5://:{SECRET}@proxy.example", "1 to 255 bytes"),
        (f"socks5h://u:{SECRET}{'x' * 250}@proxy.example", "1 to 255 bytes"),
    ],
)
def test_no_proxy(text: str, told: str) -> None:
    """What is none is refused in one line, which does not repeat a password."""
    with pytest.raises(ValueError, match="expected") as refused:
        Proxy.parse(text)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)
    assert SECRET not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


@given(st.text() | st.from_regex(r"(https?|socks5h?)://[^/]*@?[a-z.:\[\]%0-9]*", fullmatch=True))
@example("http://%C3%28@h")
def test_any_text(text: str) -> None:
    """Any text is a proxy, or a ``ValueError`` of one line."""
    try:
        proxy = Proxy.parse(text)
    except ValueError as error:
        assert str(error).startswith("expected a ")  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert Proxy.parse(str(proxy)) == Proxy(proxy.scheme, proxy.host, proxy.port)


@given(printable, printable, ports)
def test_round_trip(username: str, password: str, port: int) -> None:
    """A name and a password of any characters can be written, and show in no text of the proxy."""
    proxy = Proxy.parse(
        f"socks5h://{quote(username, safe='')}:{quote(password, safe='')}@proxy.example:{port}"
    )
    assert proxy == Proxy("socks5h", "proxy.example", port, username, password)
    anonymous = Proxy("socks5h", "proxy.example", port)
    assert (str(proxy), repr(proxy)) == (str(anonymous), repr(anonymous))


@pytest.mark.parametrize(
    ("proxy", "names"),
    [("http://p", True), ("https://p", True), ("socks5h://p", True), ("socks5://p", False)],
)
def test_names(proxy: str, names: bool) -> None:
    """Only a ``socks5`` proxy is told addresses, as with curl."""
    assert Proxy.parse(proxy).is_told_names is names


def test_error() -> None:
    """An error names the proxy without its login, and keeps what the proxy answered."""
    error = ProxyError(Proxy.parse(f"http://user:{SECRET}@proxy.example:3128"), "answered 407", 407)
    assert str(error) == "the proxy http://proxy.example:3128 answered 407"
    assert error.status == 407
    assert SECRET not in repr(error) + repr(error.args)


@pytest.mark.parametrize(("host", "written"), [("r.example", "r.example:443"), ("::1", "[::1]:443")])
def test_authority(host: str, written: str) -> None:
    """An IPv6 address stands in brackets before a port."""
    assert authority(host, 443) == written
