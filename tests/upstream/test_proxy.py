"""Outbound proxies: URLs, environment, and hosts without a proxy."""

from __future__ import annotations

from ipaddress import IPv4Address
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dockmirror.upstream.proxy import NoProxy, Proxy, ProxyError, ProxySettings, format_authority

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
def test_a_url_is_parsed_with_defaults(text: str, proxy: Proxy) -> None:
    """Scheme, port and login may be omitted."""
    assert Proxy.parse(text) == proxy


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (
            ["", "http://", "http://{}@", "http://{}@proxy.example:port", "://{}@proxy.example"],
            "a proxy such as",
        ),
        (["http://{}@proxy.example/path", "http://{}@proxy.example?query"], "a proxy such as"),
        (["http://{}/x@proxy.example", "http://{} @proxy.example"], "a proxy such as"),
        (["http://{}@proxy.example\n", "http://{}@prøxy.example"], "a proxy such as"),
        (["http://{}@[fe80::1%eth0]:80"], "a proxy such as"),
        (["http://{}@[1.2.3.4]:80", "http://{}@[:::]:80"], "a name or an address"),
        (["http://{}@proxy.example:0", "http://{}@proxy.example:65536"], "between 1 and 65535"),
        (["socks4://{}@proxy.example"], "one of http, https, socks5, socks5h"),
        (["http://{}%FF@proxy.example"], "UTF-8"),
        (["http://{}%0D%0AHost%3A%20x@proxy.example"], "without control characters"),
        (["http://a%3A{}@proxy.example"], "without a colon"),
        (["socks5://:hidden@proxy.example", "socks5h://{}" + "x" * 250 + "@proxy.example"], "1 to 255 bytes"),
    ],
)
def test_an_invalid_url_is_refused(texts: list[str], message: str) -> None:
    """The error is one line and repeats no password."""
    for text in texts:
        with pytest.raises(ValueError, match="expected") as refused:
            Proxy.parse(text.format(f"u:{SECRET}"))
        assert message in str(refused.value)
        assert "\n" not in str(refused.value)
        assert SECRET not in str(refused.value)
        assert refused.value.__cause__ is None
        assert refused.value.__suppress_context__ or refused.value.__context__ is None


schemes = st.sampled_from(["http://", "https://", "socks5://", "socks5h://"])


@given(st.text() | st.builds("{}{}@{}".format, schemes, st.text(), st.text("az.:[]%09")))
@example("http://%C3%28@h")
def test_any_text_is_a_proxy_or_a_value_error(text: str) -> None:
    try:
        proxy = Proxy.parse(text)
    except ValueError as error:
        assert str(error).startswith("expected a ")  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert Proxy.parse(str(proxy)) == Proxy(proxy.scheme, proxy.host, proxy.port)


@given(printable, printable, ports)
def test_any_login_can_be_written(username: str, password: str, port: int) -> None:
    """It shows in no text of the proxy."""
    proxy = Proxy.parse(
        f"socks5h://{quote(username, safe='')}:{quote(password, safe='')}@proxy.example:{port}"
    )
    assert proxy == Proxy("socks5h", "proxy.example", port, username, password)
    anonymous = Proxy("socks5h", "proxy.example", port)
    assert (str(proxy), repr(proxy)) == (str(anonymous), repr(anonymous))


def test_only_socks5_is_sent_addresses() -> None:
    """As with curl."""
    resolving = [s for s in ("http", "https", "socks5", "socks5h") if Proxy.parse(f"{s}://p").resolves_names]
    assert resolving == ["http", "https", "socks5h"]


def test_an_error_names_the_proxy_without_its_login() -> None:
    """It keeps the proxy's response."""
    error = ProxyError(Proxy.parse(f"http://user:{SECRET}@proxy.example:3128"), "answered 407", 407)
    assert str(error) == "the proxy http://proxy.example:3128 answered 407"
    assert error.status == 407
    assert SECRET not in repr(error) + repr(error.args)


def test_an_ipv6_address_stands_in_brackets() -> None:
    assert [format_authority(host, 443) for host in ("r.example", "::1")] == ["r.example:443", "[::1]:443"]


LOWER, UPPER, BOTH = (Proxy("http", name, 3128) for name in ("lower", "upper", "both"))
labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
names = st.lists(labels, min_size=1, max_size=4).map(".".join).filter(lambda name: not name[-1].isdigit())
words = st.text("*.,: /[]abz019", max_size=12) | st.text(max_size=8)


@pytest.mark.parametrize(
    ("environ", "scheme", "proxy"),
    [
        ({}, "https", None),
        ({"https_proxy": "lower:3128"}, "https", LOWER),
        ({"https_proxy": "lower:3128"}, "http", None),
        ({"HTTPS_PROXY": "upper:3128"}, "https", UPPER),
        ({"https_proxy": "lower:3128", "HTTPS_PROXY": "upper:3128"}, "https", LOWER),
        ({"https_proxy": "", "HTTPS_PROXY": "upper:3128"}, "https", UPPER),
        ({"http_proxy": "lower:3128"}, "http", LOWER),
        ({"http_proxy": "lower:3128"}, "https", None),
        ({"HTTP_PROXY": "upper:3128"}, "http", None),
        ({"all_proxy": "both:3128"}, "http", BOTH),
        ({"ALL_PROXY": "both:3128"}, "https", BOTH),
        ({"ALL_PROXY": "both:3128", "HTTPS_PROXY": "upper:3128"}, "https", UPPER),
        ({"ALL_PROXY": "both:3128", "HTTP_PROXY": "upper:3128"}, "http", BOTH),
        ({"ALL_PROXY": "both:3128", "no_proxy": "r.example"}, "https", None),
        ({"ALL_PROXY": "both:3128", "NO_PROXY": "r.example"}, "https", None),
        ({"ALL_PROXY": "both:3128", "no_proxy": "other", "NO_PROXY": "r.example"}, "https", BOTH),
        ({"ALL_PROXY": "both:3128", "no_proxy": "", "NO_PROXY": "r.example"}, "https", None),
    ],
)
def test_the_environment_is_read_as_curl_does(
    environ: dict[str, str], scheme: str, proxy: Proxy | None
) -> None:
    """Lower case precedes upper, a scheme's proxy ``all_proxy``; ``HTTP_PROXY`` is ignored."""
    assert ProxySettings.parse(environ).choose(scheme, "r.example", 443) == proxy


@pytest.mark.parametrize("name", ["https_proxy", "HTTPS_PROXY", "http_proxy", "all_proxy", "ALL_PROXY"])
def test_an_invalid_variable_is_named(name: str) -> None:
    """Its secret is not repeated."""
    with pytest.raises(ValueError, match=f"^{name}: expected a proxy such as") as refused:
        ProxySettings.parse({name: "http://user:hidden@proxy:x"})
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "covered", "others"),
    [
        ("", "", "r.example:443"),
        ("*", "r.example:443 10.0.0.1:80 [::1]:1", ""),
        ("a.example,*", "r.example:443", ""),
        ("*:5000", "r.example:5000 10.0.0.1:5000", "r.example:443"),
        ("example", "example:1 r.example:443 cdn.r.example:443", "rexample:443 example.com:443"),
        (".r.example", "r.example:443 cdn.r.example:443", "cdnr.example:443"),
        ("*.r.example", "r.example:443 cdn.r.example:443", "cdnr.example:443"),
        ("r.example.", "r.example:443", ""),
        ("R.Example", "r.example:443 R.EXAMPLE:443 r.example.:443", ""),
        ("a.example, b.example\tc.example", "a.example:1 b.example:1 c.example:1", "d.example:1"),
        ("r.example:5000", "r.example:5000 cdn.r.example:5000", "r.example:443"),
        ("10.0.0.0/8", "10.1.2.3:443 [::ffff:10.1.2.3]:443", "11.0.0.1:443 r.example:443"),
        ("10.1.2.3/8", "10.200.0.1:443", ""),
        ("10.1.2.3", "10.1.2.3:443", "110.1.2.3:443 10.1.2.30:443"),
        ("10.1.2.3:5000", "10.1.2.3:5000", "10.1.2.3:443"),
        ("10.0.0.0/8:5000", "10.1.2.3:5000", "10.1.2.3:443"),
        ("fd00::/8", "[fd12::1]:443", "[fe80::1]:443 10.0.0.1:443"),
        ("::1", "[::1]:443", "[::2]:443"),
        ("[::1]", "[::1]:443", "[::2]:443"),
        ("[::1]:5000", "[::1]:5000", "[::1]:443"),
        ("0.1", "", "10.0.0.1:443"),
        (". .. *. *example [ :80 r.example:99999 10.0.0.0/33 /8", "", "r.example:443 10.0.0.1:443"),
    ],
)
def test_hosts_without_a_proxy(text: str, covered: str, others: str) -> None:
    """Entries are domains with the names below them, addresses, networks, ports and ``*``."""
    for hosts, expected in ((covered, True), (others, False)):
        for each in hosts.split():
            host, _, port = each.rpartition(":")
            assert NoProxy.parse(text).covers(host.strip("[]"), int(port)) is expected, each


@given(st.lists(words).map(",".join), names | words, ports)
def test_any_text_is_a_valid_no_proxy(text: str, host: str, port: int) -> None:
    assert NoProxy.parse(text).covers(host, port) in (True, False)


@given(names, labels, ports, st.sampled_from(["{}", ".{}", "*.{}", "{}.", "{}:{}"]))
def test_a_domain_covers_the_names_below_it(domain: str, label: str, port: int, written: str) -> None:
    """It may be written in several ways."""
    listed = NoProxy.parse("a.invalid, " + written.format(domain, port))
    assert listed.covers(domain, port)
    assert listed.covers(f"{label}.{domain.upper()}.", port)
    assert not listed.covers(f"{label}{domain}", port)
    assert not listed.covers(f"{domain}.{label}.test", port)


@given(st.ip_addresses(v=4), st.integers(0, 32), st.ip_addresses(v=4), ports)
def test_a_network_covers_its_addresses(
    address: IPv4Address, length: int, other: IPv4Address, port: int
) -> None:
    same = int(address) >> (32 - length) == int(other) >> (32 - length)
    assert NoProxy.parse(f"{address}/{length}").covers(str(other), port) is same
