"""Parse and match IP networks, and the host names and addresses in requests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from attrs import frozen

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

PRIVATE: tuple[Network, ...] = tuple(
    map(
        ip_network,
        (
            "127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10",
            "169.254.0.0/16", "fe80::/10", "fc00::/7",
        ),
    )
)  # fmt: skip
"""Loopback, RFC 1918, 100.64/10 (RFC 6598), link-local, unique local (RFC 4193)."""
PUBLIC: tuple[Network, ...] = tuple(map(ip_network, ("0.0.0.0/0", "::/0")))

_CLIENT_BITS = {4: 32, 6: 64}
"""A household or a virtual machine usually has a whole IPv6 /64 to itself."""
_MAPPED_PREFIX = bytes(10) + b"\xff\xff"
_WORDS = {"private": PRIVATE, "public": PUBLIC}


def parse_networks(names: Iterable[str]) -> Iterator[Network]:
    """Parse the networks of a setting: CIDRs, and the words ``private`` and ``public``.

    :raises ValueError: for anything else.
    """
    for name in names:
        yield from _WORDS.get(name) or (ip_network(name),)


def parse_address(text: str) -> Address:
    """Parse an address; an IPv4-mapped IPv6 address becomes IPv4 (RFC 4291, 2.5.5.2), a zone is dropped.

    :raises ValueError: when it is no address.
    """
    return _parse_unmapped(text.partition("%")[0])


@lru_cache(maxsize=4096)
def _parse_unmapped(text: str) -> Address:
    """Parse an address, cached because it is needed for each request of a client."""
    address = ip_address(text)
    return (address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address


@frozen
class Region:
    """The networks of clients that are close to each other."""

    name: str
    networks: tuple[Network, ...]


def find_region(address: Address, regions: Iterable[Region]) -> Region | None:
    """Return the first region that has the address."""
    return next((each for each in regions if is_within(address, each.networks)), None)


def pack_address(address: Address) -> bytes:
    """Return the 16 bytes of an address; IPv4 becomes IPv4-mapped IPv6."""
    return _MAPPED_PREFIX + address.packed if address.version == 4 else address.packed


def unpack_address(packed: bytes) -> Address:
    """Return the address that ``pack_address`` packed."""
    address = IPv6Address(packed)
    return address.ipv4_mapped or address


def network_class(address: Address) -> str:
    """Return ``private`` or ``public``."""
    return "private" if is_within(address, PRIVATE) else "public"


def is_within(address: Address, listed: Iterable[Network]) -> bool:
    """Return whether the address lies in one of the networks."""
    return any(address in network for network in listed)


@lru_cache(maxsize=4096)
def client_network(address: Address) -> Network:
    """Return the network that counts as one client: an IPv4 address, or an IPv6 /64."""
    return ip_network((address, _CLIENT_BITS[address.version]), strict=False)


def port_suffix(host: str) -> str:
    """Return the port of a host with its colon, such as ``:8080``; empty if there is none."""
    _, colon, port = host.rpartition(":")
    return f":{port}" if colon and port.isdigit() else ""


def normalize_host(host: str) -> str:
    """Return the name in a ``Host`` field in lower case, without port, brackets and trailing dot."""
    name, colon, port = host.strip().lower().rpartition(":")
    if not colon or "]" in port:
        name = host.strip().lower()
    return name.removeprefix("[").removesuffix("]").rstrip(".")


def is_address(name: str) -> bool:
    """Return whether a host name is an IP address."""
    try:
        parse_address(name)
    except ValueError:
        return False
    return True
