"""Networks by CIDR and by word."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.system.networks import PRIVATE, PUBLIC, is_within, parse_address, parse_networks

ADDRESSES = st.ip_addresses()


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
