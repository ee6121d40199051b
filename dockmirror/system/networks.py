"""Networks and addresses: parsed and matched; which clients are served, and which proxies may report them.

A proxy in front hides its clients, and one on the same machine makes all of them look private.  Forwarded
headers are therefore accepted from the proxies that the operator names, and rejected from all other peers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from attrs import field, frozen

from ..oci.errors import Denied

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
_FOR, _PROTO, _FORWARDED_HOST = "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"
_FORWARDED = frozenset(
    {_FOR, _PROTO, _FORWARDED_HOST, "forwarded", "x-real-ip", "cf-connecting-ip", "true-client-ip"}
)
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")


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
    """Parse an address without its zone, which may be long; cached, because each request needs it."""
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


@frozen
class ClientAddress:
    """The client of a request.

    :ivar address: None on a UNIX socket.
    :ivar scheme: of the URL that the client used, as far as a trusted proxy reports it.
    :ivar host: the host, with its port if any, that the client used.
    :ivar host_name: that host without its port; see ``normalize_host``.
    :ivar user: its user name, if the mirror requires a login.
    :ivar is_proxied: True if a trusted proxy passed the request on.
    """

    address: Address | None
    scheme: str
    host: str
    user: str | None = None
    is_proxied: bool = False
    host_name: str = field(init=False, eq=False, repr=False)

    @host_name.default
    def _normalized_host(self) -> str:
        return normalize_host(self.host)


@frozen
class NetworkAccess:
    """The networks whose clients are served, and the proxies that are trusted.

    :ivar trusts_unix_socket: True if a proxy that connects over a UNIX socket is trusted.
    """

    networks: tuple[Network, ...] = PRIVATE
    trust_proxy: tuple[Network, ...] = ()
    trusts_unix_socket: bool = False

    def identify_client(
        self, peer: str | None, secure: bool, headers: Mapping[str, Sequence[str]]
    ) -> ClientAddress:
        """Return the client behind a connection.

        :param peer: the address at the other end; None for a UNIX socket.
        :param headers: the values of the request's headers, by their names in lower case.
        :raises Denied: when the client cannot be identified, naming the setting to change.
        """
        address = None if peer is None else _parse_peer(peer)
        scheme, host = "https" if secure else "http", _first_value(headers.get("host", ()))
        is_proxied = not _FORWARDED.isdisjoint(headers)
        if is_proxied:
            if not self._is_trusted(address):
                raise Denied(
                    "this request came through an untrusted proxy; to trust it, add its"
                    " address to 'trust_proxy'"
                )
            if _FOR not in headers:
                raise Denied("the proxy in front must send 'X-Forwarded-For' to identify the client")
            address = self._find_client(address, headers[_FOR])
            scheme = (_last_value(headers.get(_PROTO, ()), _is_scheme) or scheme).lower()
            host = _last_value(headers.get(_FORWARDED_HOST, ()), _is_host) or host
        return ClientAddress(address, scheme, host, is_proxied=is_proxied)

    def check(self, client: ClientAddress) -> None:
        """:raises Denied: when the client is outside the served networks, naming the setting to change."""
        if client.address is not None and not is_within(client.address, self.networks):
            raise Denied("this mirror does not serve your network; its operator can add it to 'networks'")

    def _is_trusted(self, address: Address | None) -> bool:
        return self.trusts_unix_socket if address is None else is_within(address, self.trust_proxy)

    def _find_client(self, peer: Address | None, lines: Sequence[str]) -> Address | None:
        """Return the last address, read from the right, that no trusted proxy has put there."""
        address = peer
        for hop in reversed([hop for line in lines for hop in line.split(",") if hop.strip()]):
            try:
                address = parse_address(_strip_port(hop.strip()))
            except ValueError:
                raise Denied("invalid 'X-Forwarded-For' header: not an IP address") from None
            if not self._is_trusted(address):
                break
        return address


def _parse_peer(peer: str) -> Address:
    try:
        return parse_address(peer)
    except ValueError:  # twisted.protocols.haproxy passes on what it reads
        raise Denied(f"the client's address, {peer!r}, is not an IP address") from None


def _strip_port(hop: str) -> str:
    """Return the address of a hop without its port: ``1.2.3.4:5``, ``[::1]:5``."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop


def _first_value(values: Sequence[str]) -> str:
    return values[0].strip() if values else ""


def _last_value(lines: Sequence[str], valid: Callable[[str], bool]) -> str | None:
    """Return the value that the nearest proxy set.

    :raises Denied: when it is invalid.
    """
    values = [value.strip() for line in lines for value in line.split(",")]
    if not values:
        return None
    if not valid(values[-1]):
        raise Denied("invalid 'X-Forwarded-Proto' or 'X-Forwarded-Host' header")
    return values[-1]


def _is_scheme(text: str) -> bool:
    return text.lower() in ("http", "https")


def _is_host(text: str) -> bool:
    return bool(_HOST.fullmatch(text))
