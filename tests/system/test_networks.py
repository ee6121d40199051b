"""Networks by CIDR and by word; client addresses: served networks, and forwarded headers of proxies."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.oci.errors import Denied
from dockmirror.system.networks import (
    PRIVATE,
    PUBLIC,
    ClientAddress,
    NetworkAccess,
    is_within,
    parse_address,
    parse_networks,
)

ADDRESSES = st.ip_addresses()
PROXY, INNER, STRANGER = "127.0.0.1", "10.0.0.5", "203.0.113.9"
FORWARDED = [
    *("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded", "X-Real-IP"),
    *("CF-Connecting-IP", "True-Client-IP"),
]
BELIEVED = [PROXY, "10.0.0.0/8"]
STRANGERS = ADDRESSES.map(str).filter(
    lambda text: not is_within(parse_address(text), parse_networks(BELIEVED))
)
ODD = ["[::1]:5", "1.2.3.4:x", "::ffff:1.2.3.4%lo", ",", "[", "https"]
FIELDS = st.dictionaries(
    st.sampled_from(["Host", *FORWARDED]), st.lists(st.text(max_size=30) | st.sampled_from(ODD), min_size=1)
)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.255.255.255", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.0.1"),
        *("100.64.0.1", "100.127.255.255", "169.254.1.1", "::1", "fe80::1", "fd00::1", "fc00::1"),
    ],
)
def test_loopback_and_local_addresses_are_private(address: str) -> None:
    """RFC 1918, shared address space, link-local, unique local."""
    assert is_within(ip_address(address), parse_networks(["private"]))


@pytest.mark.parametrize(
    "address",
    [
        *("126.255.255.255", "128.0.0.1", "11.0.0.1", "172.15.255.255", "172.32.0.1", "192.167.255.255"),
        *("192.169.0.1", "100.63.255.255", "100.128.0.1", "169.253.0.1", "8.8.8.8", "0.0.0.1", "198.18.0.1"),
        *("::", "::2", "fec0::1", "2001:db8::1", "2606:4700::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"),
    ],
)
def test_public_addresses_are_not_private(address: str) -> None:
    """Nor are IPv6 addresses that only embed a private one."""
    assert not is_within(ip_address(address), parse_networks(["private"]))


@given(ADDRESSES)
def test_public_contains_all_addresses(address: IPv4Address | IPv6Address) -> None:
    assert is_within(address, parse_networks(["public"]))
    assert not is_within(address, parse_networks([]))


@given(ADDRESSES, st.data())
def test_a_network_contains_its_addresses(address: IPv4Address | IPv6Address, data: st.DataObject) -> None:
    """An address is a network of one."""
    length: int = data.draw(st.integers(0, address.max_prefixlen))
    network = ip_network((address, length), strict=False)
    assert is_within(address, parse_networks(["192.0.2.1", str(network)]))
    assert is_within(address, parse_networks([str(address)]))
    other = "203.0.113.0/24" if address.version == 6 else "2001:db8::/32"
    assert not is_within(address, parse_networks([other]))


def test_words_and_networks_may_be_mixed() -> None:
    assert list(parse_networks(["203.0.113.0/24", "private"])) == [ip_network("203.0.113.0/24"), *PRIVATE]
    assert list(parse_networks(["public"])) == list(PUBLIC)


@pytest.mark.parametrize(
    "name", ["", "Private", "lan", "10.0.0.1/8", "10.0.0.0/33", "10.0.0", "localhost", "1.2.3.4:80", "[::1]"]
)
def test_other_text_and_networks_with_host_bits_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"does not appear|host bits"):
        list(parse_networks(["private", name]))


@given(st.ip_addresses(v=4))
def test_an_ipv4_mapped_address_is_parsed_as_ipv4(address: IPv4Address) -> None:
    """A dual-stack socket reports IPv4 clients so (RFC 4291, 2.5.5.2)."""
    assert parse_address(f"::ffff:{address}") == parse_address(str(address)) == address


@given(st.builds(IPv6Address, st.integers(2**48, 2**128 - 1)))
def test_the_zone_of_an_address_is_dropped(address: IPv6Address) -> None:
    """It names an interface."""
    assert parse_address(str(address)) == parse_address(f"{address}%eth0") == address


@pytest.mark.parametrize("text", ["", "unix", "localhost", "1.2.3", "1.2.3.4:5", "[::1]", "::1 ", "%eth0"])
def test_text_that_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="does not appear"):
        parse_address(text)


def access(
    trust_proxy: Iterable[str] = (), served: Iterable[str] = ("public",), unix: bool = False
) -> NetworkAccess:
    """Rules with these networks."""
    return NetworkAccess(tuple(parse_networks(served)), tuple(parse_networks(trust_proxy)), unix)


def headers(**fields: str | list[str]) -> dict[str, list[str]]:
    """Return the header lines of a request, named with an underscore for each hyphen."""
    lines = {"host": ["mirror.example:8080"]}
    for name, value in fields.items():
        lines[name.replace("_", "-").lower()] = [value] if isinstance(value, str) else value
    return lines


def admitted(
    by: NetworkAccess, peer: str | None = PROXY, secure: bool = False, **fields: str | list[str]
) -> ClientAddress:
    """Return the client that is admitted."""
    client = by.identify_client(peer, secure, headers(**fields))
    by.check(client)
    return client


def denied(by: NetworkAccess, peer: str | None = PROXY, **fields: str | list[str]) -> str:
    """Return the reason of a refusal."""
    with pytest.raises(Denied) as caught:
        by.check(by.identify_client(peer, False, headers(**fields)))
    assert caught.value.status == 403
    return str(caught.value)


@pytest.mark.parametrize("peer", ["127.0.0.1", "10.1.2.3", "192.168.1.2", "::1", "fe80::1%eth0", "fd00::1"])
def test_by_default_a_private_network_is_served(peer: str) -> None:
    client = ClientAddress(parse_address(peer), "http", "mirror.example:8080")
    assert admitted(NetworkAccess(), peer) == client


@pytest.mark.parametrize("peer", [STRANGER, "8.8.8.8", "2001:db8::1", "::ffff:8.8.8.8"])
def test_by_default_a_public_network_is_refused(peer: str) -> None:
    """A refusal names the setting that decides."""
    assert "'networks'" in denied(NetworkAccess(), peer)


def test_configured_networks_replace_the_private_ones() -> None:
    by = access(served=["203.0.113.0/24", "2001:db8::/32"])
    for peer in (STRANGER, "2001:db8::1"):
        assert admitted(by, peer).address == ip_address(peer)
    for peer in ("127.0.0.1", "10.0.0.1", "::1", "203.0.114.1"):
        assert "'networks'" in denied(by, peer)


@given(ADDRESSES)
def test_an_ipv4_mapped_address_is_treated_as_ipv4(address: IPv4Address | IPv6Address) -> None:
    """A dual-stack socket reports IPv4 clients in this form."""
    peer = f"::ffff:{address}" if address.version == 4 else str(address)
    by = access(served=["0.0.0.0/0"])
    if isinstance(parse_address(peer), IPv4Address):
        assert admitted(by, peer) == admitted(by, str(parse_address(peer)))
    else:
        assert "'networks'" in denied(by, peer)


@pytest.mark.parametrize("header", FORWARDED)
@pytest.mark.parametrize("value", ["", "127.0.0.1", "https", "for=127.0.0.1"])
def test_forwarded_headers_of_untrusted_peers_are_refused(header: str, value: str) -> None:
    """An unnamed proxy would make all of its clients look private."""
    for by in (access(), access(["10.0.0.0/8"]), access(unix=True), NetworkAccess()):
        assert "'trust_proxy'" in denied(by, PROXY, **{header: value})
    for by in (access([PROXY]), NetworkAccess()):
        assert "'trust_proxy'" in denied(by, None, **{header: value})


def test_a_trusted_proxy_reports_the_client_of_a_served_network() -> None:
    for peer in (PROXY, f"::ffff:{PROXY}"):
        assert admitted(access([PROXY]), peer, X_Forwarded_For=STRANGER).address == ip_address(STRANGER)
    assert admitted(access([PROXY], ["203.0.113.0/24"]), X_Forwarded_For=STRANGER)
    assert "'networks'" in denied(access([PROXY], ["private"]), X_Forwarded_For=STRANGER)
    assert "'networks'" in denied(access([PROXY], ["203.0.113.0/24"]), X_Forwarded_For=INNER)


@pytest.mark.parametrize(
    ("lines", "origin"),
    [
        (["203.0.113.9"], "203.0.113.9"),
        (["10.0.0.1, 203.0.113.9"], "203.0.113.9"),
        (["127.0.0.1, 203.0.113.9, 10.0.0.5"], "203.0.113.9"),
        (["127.0.0.1, 203.0.113.9", "10.0.0.5"], "203.0.113.9"),
        (["203.0.113.9", "192.0.2.1"], "192.0.2.1"),
        (["10.0.0.7, 10.0.0.5"], "10.0.0.7"),
        (["not an address, 203.0.113.9"], "203.0.113.9"),
        (["203.0.113.9,"], "203.0.113.9"),
        ([" , 203.0.113.9 , ,10.0.0.5"], "203.0.113.9"),
        (["203.0.113.9:5000, 10.0.0.5:80"], "203.0.113.9"),
        (["[2001:db8::1]:5000"], "2001:db8::1"),
        (["[2001:db8::1]"], "2001:db8::1"),
        (["2001:db8::1"], "2001:db8::1"),
        (["fe80::1%eth0"], "fe80::1"),
        (["::ffff:203.0.113.9"], "203.0.113.9"),
        (["[::ffff:203.0.113.9]:1"], "203.0.113.9"),
        ([""], "127.0.0.1"),
    ],
)
def test_the_chain_is_read_from_the_right(lines: list[str], origin: str) -> None:
    """The client is the last address that is no trusted proxy; a client may have forged those before it."""
    by = access(BELIEVED)
    assert admitted(by, X_Forwarded_For=lines).address == ip_address(origin)


@given(st.lists(st.sampled_from([PROXY, INNER, "10.9.9.9"])), STRANGERS, st.lists(ADDRESSES.map(str)))
def test_a_client_cannot_forge_its_address(proxies: list[str], stranger: str, sent: list[str]) -> None:
    """The client is known by the address that the first trusted proxy saw."""
    seen = ", ".join([stranger, *proxies])
    assert admitted(access(BELIEVED), X_Forwarded_For=[*sent, seen]).address == parse_address(stranger)


@pytest.mark.parametrize(
    "hop", ["unknown", "_hidden", "203.0.113", "203.0.113.9.1", "[]", "a:b:c", "1.2.3.4:5:6", "-"]
)
def test_an_invalid_chain_is_refused(hop: str) -> None:
    assert "X-Forwarded-For" in denied(access([PROXY]), X_Forwarded_For=hop)
    assert "X-Forwarded-For" in denied(access([PROXY]), X_Forwarded_For=f"{STRANGER}, {hop}")


def test_a_peer_whose_address_is_none_is_refused() -> None:
    """Such as one that a proxy has named in a malformed line of the PROXY protocol."""
    with pytest.raises(Denied, match="is not an IP address"):
        access().identify_client("a.host", False, headers())


def test_a_unix_socket_has_no_address() -> None:
    """The permissions of the socket decide who may connect."""
    client = ClientAddress(None, "http", "mirror.example:8080")
    assert admitted(access(served=["192.0.2.0/24"]), None) == client


def test_a_proxy_at_a_unix_socket_can_be_trusted() -> None:
    """The networks apply to the client that it reports."""
    by = access(served=["private"], unix=True)
    client = admitted(by, None, X_Forwarded_For=INNER, X_Forwarded_Proto="https")
    assert client == ClientAddress(IPv4Address(INNER), "https", "mirror.example:8080", is_proxied=True)
    assert "'networks'" in denied(by, None, X_Forwarded_For=STRANGER)


def test_without_a_proxy_scheme_and_host_are_the_connections() -> None:
    """The realm in a challenge needs them."""
    assert admitted(access(), secure=True).scheme == "https"
    assert admitted(access(), Host=" a.example ").host == "a.example"
    assert admitted(access(), Host=[]).host == ""


@pytest.mark.parametrize(
    ("fields", "scheme", "host"),
    [
        ({"X-Forwarded-Proto": "https"}, "https", "mirror.example:8080"),
        ({"X-Forwarded-Proto": "HTTPS"}, "https", "mirror.example:8080"),
        ({"X-Forwarded-Proto": "http, https"}, "https", "mirror.example:8080"),
        ({"X-Forwarded-Proto": ["https", "http"]}, "http", "mirror.example:8080"),
        ({"X-Forwarded-Host": "a.example:5000"}, "http", "a.example:5000"),
        ({"X-Forwarded-Host": "evil.example, a.example"}, "http", "a.example"),
        ({"X-Forwarded-Host": "[::1]:80"}, "http", "[::1]:80"),
        ({"X-Real-IP": "192.0.2.1"}, "http", "mirror.example:8080"),
    ],
)
def test_a_proxy_reports_scheme_and_host(fields: dict[str, str | list[str]], scheme: str, host: str) -> None:
    """The nearest proxy's value counts; without a header the connection's does."""
    client = access([PROXY]).identify_client(
        PROXY, False, headers(**{"X-Forwarded-For": "10.9.9.9", **fields})
    )
    assert (client.scheme, client.host) == (scheme, host)


@pytest.mark.parametrize("name", ["X-Real-IP", "Forwarded", "X-Forwarded-Proto", "X-Forwarded-Host"])
def test_a_proxy_that_hides_the_client_is_refused(name: str) -> None:
    """Its own address, which may be private, would stand for all clients."""
    with pytest.raises(Denied, match="X-Forwarded-For"):
        access([PROXY]).identify_client(PROXY, False, headers(**{name: "https"}))


@pytest.mark.parametrize(
    ("header", "value"),
    [
        *product(["X-Forwarded-Proto"], ["", "ftp", "https,", "javascript", "https://"]),
        *product(["X-Forwarded-Host"], ["", "a/b", "a b", 'a"', "a:port", "a:1:2", "a@b", "a\r\nb", "é"]),
    ],
)
def test_an_invalid_scheme_or_host_of_a_proxy_is_refused(header: str, value: str) -> None:
    """It would stand in the realm to which clients send their passwords."""
    assert "invalid 'X-Forwarded-Proto' or 'X-Forwarded-Host' header" in denied(
        access([PROXY]), **{"X-Forwarded-For": INNER, header: value}
    )


@given(FIELDS, st.booleans(), st.booleans())
def test_any_headers_give_a_client_or_a_refusal(
    fields: dict[str, list[str]], believed: bool, secure: bool
) -> None:
    """A peer that is not trusted keeps its own address."""
    access = NetworkAccess(trust_proxy=tuple(parse_networks(["10.0.0.0/8"])) if believed else ())
    try:
        client = access.identify_client("10.0.0.1", secure, headers(**fields))
    except Denied:
        return
    assert client.scheme in ("http", "https")
    assert believed or client.address == ip_address("10.0.0.1")
