"""Origins of URLs, and rules for the IP addresses that an upstream may be connected to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

from attrs import field, frozen

from ..system.networks import PRIVATE, Address, Network, is_within, parse_address

_DEFAULT_PORTS = {"http": 80, "https": 443}


def parse_origin(url: str) -> tuple[str, str, int | None]:
    """Return scheme, host and port in normal form (RFC 6454, 4)."""
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").rstrip("."), parts.port or _DEFAULT_PORTS.get(parts.scheme)


def _canonical(host: str) -> str:
    bare = host.strip("[]").removesuffix(".").lower()
    try:
        return str(ip_address(bare))
    except ValueError:
        return bare


def _canonical_all(hosts: Iterable[str]) -> frozenset[str]:
    return frozenset(map(_canonical, hosts))


def _host_ports(urls: Iterable[str]) -> frozenset[tuple[str, int | None]]:
    return frozenset((_canonical(host), port) for _, host, port in map(parse_origin, urls))


class PrivateAddressDetector:
    """Remembers whether an upstream's own host was reached at a private address.

    Such an upstream may answer because of the mirror's network, so its content is not public.
    """

    def __init__(self, host: str) -> None:
        self.is_private = False
        self._host = host

    def __call__(self, host: str, address: str) -> None:
        """Note a connection to a host that was made to this IP address."""
        if host.lower() == self._host and is_within(parse_address(address), PRIVATE):
            self.is_private = True


@frozen
class AllowedAddresses:
    """The addresses at which one upstream may be reached: public ones, and those that its operator
    configured.

    :ivar urls: the operator's own URLs; their hosts may have any address, at the ports that the URLs name.
        Another port of such a host, to which the upstream may redirect, is treated like any other server.
    :ivar networks: the upstream's ``allow_networks``, in which every host may be, at every port.
    :ivar hosts: names and literal addresses that are allowed at any address and port.
    """

    urls: frozenset[tuple[str, int | None]] = field(converter=_host_ports)
    networks: tuple[Network, ...] = field(default=(), converter=tuple[Network, ...])
    hosts: frozenset[str] = field(default=(), converter=_canonical_all)

    def explain_refusal(self, host: str, port: int, address: str) -> str | None:
        """Return a sentence why the address of a host must not be connected to; None if it may be.

        :param host: the name as it was looked up; a literal address is a host that resolved to itself.
        :raises ValueError: when ``address`` is not an IP address, and so must not be connected to either.
        """
        literal = ip_address(address.partition("%")[0])
        destinations = _find_destinations(literal)
        if not _METADATA.isdisjoint((literal, *destinations)):
            return f"{_describe(host, literal)} a cloud's metadata service: no setting allows that"
        if self._is_configured(_canonical(host), port) or self._is_allowed(literal):
            return None
        for destination in destinations:
            kind = _classify(destination)
            if kind is not None and not self._is_allowed(destination):
                wrapped = f"a form of {destination}, which is " if destination != literal else ""
                reason = f"{_describe(host, literal)} {wrapped}{kind}"
                return f"{reason}: to connect at port {port}, add it to the upstream's allow_networks"
        return None

    def _is_configured(self, host: str, port: int) -> bool:
        return (host, port) in self.urls or host in self.hosts

    def _is_allowed(self, address: Address) -> bool:
        return any(address in network for network in self.networks)


def _describe(host: str, address: Address) -> str:
    return f"{address} is" if _canonical(host) == str(address) else f"{host} resolves to {address}, which is"


def _find_destinations(address: Address) -> list[Address]:
    """Return the addresses where a packet may end: for an IPv6 form that wraps an IPv4 address, the
    latter.
    """
    if isinstance(address, IPv4Address) or int(address) <= 1:
        return [address]
    octets = address.packed
    tunnelled = [IPv4Address(octets[12:])] if octets[8:12] in _ISATAP else []
    if address.teredo is not None:
        return [*_drop_zero(address.teredo), *tunnelled]
    for network, positions in _WRAPPINGS:
        if address in network:
            readings = [IPv4Address(bytes(octets[i] for i in octet_indexes)) for octet_indexes in positions]
            return [*_drop_zero(readings), *tunnelled]
    return [address, *tunnelled]


def _drop_zero(readings: Sequence[IPv4Address]) -> Sequence[IPv4Address]:
    """Return the possible readings of an address: 0.0.0.0/8 is no destination, if there is another one."""
    return [reading for reading in readings if reading not in _ZERO] or readings


def _classify(address: Address) -> str | None:
    """Return the kind of an address that is not public."""
    for kind, networks in _KINDS:
        if any(address in network for network in networks):
            return kind
    return "reserved" if isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST else None


# These addresses hand out the machine's own credentials.
_METADATA = frozenset(
    map(
        ip_address,
        [
            "169.254.169.254",  # AWS, Azure, Google, OpenStack and most others
            "169.254.170.2",  # AWS ECS
            "169.254.170.23",  # AWS EKS
            "fd00:ec2::254",  # AWS
            "fd00:ec2::23",  # AWS EKS
            "fd20:ce::254",  # Google
            "fe80::a9fe:a9fe",  # OpenStack
            "100.100.100.200",  # Alibaba
            "192.0.0.192",  # Oracle
            "168.63.129.16",  # Azure
        ],
    )
)

# IANA's special-purpose registries (RFC 6890).  ``ipaddress`` does not distinguish the kinds, unwraps only
# the mapped form, and differs between versions of Python.
_KINDS = [
    (kind, [ip_network(network) for network in networks.split()])
    for kind, networks in {
        "loopback": "127.0.0.0/8 ::1/128",
        "private": "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16",
        "shared by carrier-grade NAT": "100.64.0.0/10",
        "link-local": "169.254.0.0/16 fe80::/10",
        "unique local": "fc00::/7",
        "site-local": "fec0::/10",
        "for benchmarks, or a fake-IP resolver's": "198.18.0.0/15 2001:2::/48",
        "for documentation": "192.0.2.0/24 198.51.100.0/24 203.0.113.0/24 2001:db8::/32 3fff::/20",
        "multicast": "224.0.0.0/4 ff00::/8",
        "broadcast": "255.255.255.255/32",
        "unspecified": "0.0.0.0/8 ::/128",
        "reserved": "192.0.0.0/24 192.88.99.0/24 240.0.0.0/4 2001::/23",
    }.items()
]
_GLOBAL_UNICAST = ip_network("2000::/3")
_ZERO = ip_network("0.0.0.0/8")

# The octets of an IPv6 address that hold the IPv4 address that it wraps.
_LAST = (12, 13, 14, 15)
_WRAPPINGS = [
    (ip_network("::/96"), [_LAST]),  # compatible
    (ip_network("::ffff:0:0/96"), [_LAST]),  # mapped
    (ip_network("::ffff:0:0:0/96"), [_LAST]),  # translated, RFC 2765
    (ip_network("64:ff9b::/96"), [_LAST]),  # NAT64
    (ip_network("2002::/16"), [(2, 3, 4, 5)]),  # 6to4
    # NAT64 of a network's own (RFC 8215): its prefix's length is unknown, so each place of RFC 6052 is read.
    (ip_network("64:ff9b:1::/48"), [(6, 7, 9, 10), (7, 9, 10, 11), (9, 10, 11, 12), _LAST]),
]
_ISATAP = {b"\x00\x00\x5e\xfe", b"\x02\x00\x5e\xfe"}  # RFC 5214
