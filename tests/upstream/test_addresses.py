"""Allowed and refused addresses."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.system.networks import Network
from dockmirror.upstream.addresses import AllowedAddresses, parse_origin

NOWHERE = AllowedAddresses(["https://registry.example"])

METADATA = (
    "169.254.169.254 169.254.170.2 169.254.170.23 100.100.100.200 192.0.0.192 168.63.129.16 "
    "fd00:ec2::254 fd00:ec2::23 fd20:ce::254 fe80::a9fe:a9fe"
)
PRIVATE = (
    "127.0.0.0/8 10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 100.64.0.0/10 169.254.0.0/16 "
    "198.18.0.0/15 192.0.2.0/24 224.0.0.0/4 240.0.0.0/4"
)
PUBLIC = (
    "8.8.8.8 1.1.1.1 223.255.255.254 172.15.0.1 172.32.0.1 100.63.0.1 100.128.0.1 "
    "2606:4700::6810:84e5 2a02:6b8::1 2001:4860:4860::8888 2600:1f18::1"
)
SPECIAL = (
    "0.0.0.0 255.255.255.255 192.0.0.8 :: ::1 fe80::1 fe80::1%eth0 fc00::1 fdff::1 fec0::1 ff02::1 "
    "2001:db8::1 3fff::1 2001:2::1 2001:20::1 100::1 5f00::1 4000::"
)


def _nat64(prefix: str, length: int, address: IPv4Address) -> IPv6Address:
    """Return an address by RFC 6052, section 2.2: the octets follow the prefix, and leave out the ninth."""
    octets = bytearray(IPv6Address(prefix).packed)
    places = [i for i in range(length // 8, 16) if i != 8 or length == 96][:4]
    for place, octet in zip(places, address.packed, strict=True):
        octets[place] = octet
    return IPv6Address(bytes(octets))


WRAPPINGS = {
    "mapped": lambda a: IPv6Address(f"::ffff:{a}"),
    "compatible": lambda a: IPv6Address(f"::{a}"),
    "translated": lambda a: IPv6Address(f"::ffff:0:{a}"),
    "NAT64": lambda a: IPv6Address(f"64:ff9b::{a}"),
    "NAT64 of a network's own, /48": lambda a: _nat64("64:ff9b:1::", 48, a),
    "NAT64 of a network's own, /56": lambda a: _nat64("64:ff9b:1::", 56, a),
    "NAT64 of a network's own, /64": lambda a: _nat64("64:ff9b:1::", 64, a),
    "NAT64 of a network's own, /96": lambda a: _nat64("64:ff9b:1::", 96, a),
    "6to4": lambda a: IPv6Address(0x2002 << 112 | int(a) << 80 | 1),
    "Teredo client": lambda a: IPv6Address(0x20010000 << 96 | 0x08080808 << 64 | int(a) ^ 0xFFFFFFFF),
    "Teredo server": lambda a: IPv6Address(0x20010000 << 96 | int(a) << 64 | 0x08080808 ^ 0xFFFFFFFF),
    "ISATAP": lambda a: IPv6Address(f"2606:4700::200:5efe:{a}"),
    "ISATAP in 6to4": lambda a: IPv6Address(0x2002 << 112 | int(a) << 80 | 0x00005EFE_08080808),
}
wrappings = st.sampled_from(sorted(WRAPPINGS))
unambiguous = wrappings.filter(lambda name: name[-3:] not in ("/48", "/56", "/64"))
private = st.sampled_from(PRIVATE.split()).flatmap(lambda network: st.ip_addresses(network=network))
names = st.sampled_from(["registry.example", "cdn.example", "169.254.169.254", "fd00:ec2::254"])
networks = st.lists(
    st.sampled_from([*PRIVATE.split(), "0.0.0.0/0", "::/0", "169.254.169.254/32", "fd00::/8"]).map(ip_network)
)


@given(private, st.none() | wrappings)
def test_an_address_that_is_not_public_is_refused(address: IPv4Address, wrapping: str | None) -> None:
    """IPv6 forms that wrap an IPv4 address are refused like it."""
    form = address if wrapping is None else WRAPPINGS[wrapping](address)
    assert NOWHERE.explain_refusal("cdn.example", 443, str(form))


@given(
    names, networks, st.sampled_from(METADATA.split()), st.none() | wrappings, st.sampled_from(["", "%eth0"])
)
def test_a_metadata_service_is_never_allowed(
    host: str, allowed: list[Network], metadata: str, wrapping: str | None, scope: str
) -> None:
    """No setting allows it, in any form."""
    address = metadata + scope if ":" in metadata else metadata
    if wrapping is not None and ":" not in metadata:
        address = str(WRAPPINGS[wrapping](IPv4Address(metadata)))
    everywhere = AllowedAddresses([], allowed, [host, "cdn.example", address])
    reason = everywhere.explain_refusal(host, 443, address)
    assert reason is not None
    assert "metadata service" in reason


@given(private)
def test_a_configured_host_may_have_any_address(address: IPv4Address) -> None:
    """It is configured by its whole name, written in any case."""
    allowed = AllowedAddresses(["https://registry.Internal."])
    for spelling in ("Registry.Internal", "registry.internal.", "REGISTRY.INTERNAL"):
        reason = allowed.explain_refusal(spelling, 443, str(address))
        assert reason is None or "metadata" in reason
    for other in ("evil.registry.internal", "registry.internal.example", "internal", ""):
        assert allowed.explain_refusal(other, 443, str(address))


@pytest.mark.parametrize("configured", ["10.1.2.3", "[::1]", "[0:0::1]", "[FD00::1]"])
def test_a_literal_address_can_be_configured(configured: str) -> None:
    """It may be written in any form."""
    address = configured.strip("[]")
    allowed = AllowedAddresses([f"https://{configured}"])
    assert allowed.explain_refusal(address, 443, address) is None
    assert allowed.explain_refusal("cdn.example", 443, address) is not None


@given(private, st.integers(1, 65535))
def test_another_port_of_a_configured_host_is_refused(address: IPv4Address, port: int) -> None:
    """A configured server is a host and a port."""
    allowed = AllowedAddresses(["http://registry.internal", "http://registry.internal:5000"])
    anywhere = AllowedAddresses([], hosts=["registry.internal"])
    configured = port in (80, 5000)
    for each, expected in ((allowed, configured), (anywhere, True)):
        refusal = each.explain_refusal("registry.internal", port, str(address))
        assert refusal is None or "metadata" in refusal or not expected
        assert refusal is not None or expected


@given(st.ip_addresses(network="10.1.0.0/16"), st.none() | unambiguous)
def test_an_allowed_network_is_allowed_for_every_host(address: IPv4Address, wrapping: str | None) -> None:
    """Every form of its addresses is allowed but the ambiguous ones."""
    allowed = AllowedAddresses([], [ip_network("10.1.0.0/16")])
    reason = str(address if wrapping is None else WRAPPINGS[wrapping](address))
    assert allowed.explain_refusal("cdn.example", 443, reason) is None


def test_a_wrapping_form_can_be_allowed() -> None:
    allowed = AllowedAddresses([], [ip_network("64:ff9b::/96")])
    assert allowed.explain_refusal("cdn.example", 443, "64:ff9b::a01:203") is None
    assert allowed.explain_refusal("cdn.example", 443, "10.1.2.3") is not None


@pytest.mark.parametrize(
    "address", PUBLIC.split() + [str(wrap(IPv4Address("8.8.4.4"))) for wrap in WRAPPINGS.values()]
)
def test_public_addresses_need_no_configuration(address: str) -> None:
    """Neither do wrapped ones."""
    assert NOWHERE.explain_refusal("cdn.example", 443, address) is None


def test_special_and_unassigned_addresses_are_refused() -> None:
    """An invalid one is an error."""
    for address in SPECIAL.split():
        assert NOWHERE.explain_refusal("cdn.example", 443, address), address
    with pytest.raises(ValueError, match=r"127\.1"):
        NOWHERE.explain_refusal("cdn.example", 443, "127.1")


@pytest.mark.parametrize(
    ("host", "address", "reason"),
    [
        ("cdn.example", "10.1.2.3", "cdn.example resolves to 10.1.2.3, which is private"),
        ("10.1.2.3", "10.1.2.3", "10.1.2.3 is private"),
        (
            "cdn.example",
            "64:ff9b::a01:203",
            "cdn.example resolves to 64:ff9b::a01:203, which is a form of 10.1.2.3, which is private",
        ),
        ("cdn.example", "fe80::1", "cdn.example resolves to fe80::1, which is link-local"),
    ],
)
def test_a_refusal_names_host_address_kind_and_remedy(host: str, address: str, reason: str) -> None:
    assert NOWHERE.explain_refusal(host, 443, address) == (
        f"{reason}: to connect at port 443, add it to the upstream's allow_networks"
    )


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://A.example/x", ("https", "a.example", 443)),
        ("http://a.example", ("http", "a.example", 80)),
        ("https://a.example.:443/", ("https", "a.example", 443)),
        ("https://a.example:444", ("https", "a.example", 444)),
        ("http://[::1]:5000/v2/", ("http", "::1", 5000)),
    ],
)
def test_an_origin_has_one_form(url: str, expected: tuple[str, str, int]) -> None:
    assert parse_origin(url) == expected
