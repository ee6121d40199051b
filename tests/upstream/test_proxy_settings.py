"""Which proxy leads where, by what the environment says."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.upstream.proxy import Proxy
from dockmirror.upstream.proxy_settings import NoProxy, ProxySettings

LOWER, UPPER, BOTH = (Proxy("http", name, 3128) for name in ("lower", "upper", "both"))
labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
names = st.lists(labels, min_size=1, max_size=4).map(".".join).filter(lambda name: not name[-1].isdigit())
ports = st.integers(1, 65535)
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
    ],
)
def test_environment(environ: dict[str, str], scheme: str, proxy: Proxy | None) -> None:
    """Lower case comes before upper, a scheme's own proxy before that of all; ``HTTP_PROXY`` is not read."""
    assert ProxySettings.parse(environ).choose(scheme, "r.example", 443) == proxy


@pytest.mark.parametrize("name", ["https_proxy", "HTTPS_PROXY", "http_proxy", "all_proxy", "ALL_PROXY"])
def test_wrong_variable(name: str) -> None:
    """A variable that names no proxy is refused by name, its secret not repeated."""
    with pytest.raises(ValueError, match=f"^{name}: expected a proxy such as") as refused:
        ProxySettings.parse({name: "http://user:hidden@proxy:x"})
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize(
    ("environ", "direct"),
    [
        ({"no_proxy": "r.example"}, True),
        ({"NO_PROXY": "r.example"}, True),
        ({"no_proxy": "other.example", "NO_PROXY": "r.example"}, False),
        ({"no_proxy": "", "NO_PROXY": "r.example"}, True),
    ],
)
def test_bypassed(environ: dict[str, str], direct: bool) -> None:
    """What ``no_proxy`` or else ``NO_PROXY`` covers is reached directly."""
    proxy = ProxySettings.parse({**environ, "ALL_PROXY": "both:3128"}).choose("https", "r.example", 443)
    assert proxy == (None if direct else BOTH)


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
def test_no_proxy(text: str, covered: str, others: str) -> None:
    """Domains with what is below them, addresses, networks, ports, and ``*``."""
    for hosts, expected in ((covered, True), (others, False)):
        for each in hosts.split():
            host, _, port = each.rpartition(":")
            assert NoProxy.parse(text).covers(host.strip("[]"), int(port)) is expected, each


@given(st.lists(words).map(",".join), names | words, ports)
def test_any_text(text: str, host: str, port: int) -> None:
    """Any text is some list, and any host is on it or not."""
    assert NoProxy.parse(text).covers(host, port) in (True, False)


@given(names, labels, ports, st.sampled_from(["{}", ".{}", "*.{}", "{}.", "{}:{}"]))
def test_domains(domain: str, label: str, port: int, written: str) -> None:
    """A domain covers itself and what is below it, whichever way it is written; nothing beside it."""
    listed = NoProxy.parse("a.invalid, " + written.format(domain, port))
    assert listed.covers(domain, port)
    assert listed.covers(f"{label}.{domain.upper()}.", port)
    assert not listed.covers(f"{label}{domain}", port)
    assert not listed.covers(f"{domain}.{label}.test", port)


@given(st.ip_addresses(v=4), st.integers(0, 32), st.ip_addresses(v=4), ports)
def test_networks(address: IPv4Address, length: int, other: IPv4Address, port: int) -> None:
    """A network covers the addresses whose first bits are its own."""
    same = int(address) >> (32 - length) == int(other) >> (32 - length)
    assert NoProxy.parse(f"{address}/{length}").covers(str(other), port) is same
