"""Client addresses: networks that are served, and reverse proxies that may report the real client.

A proxy in front hides its clients, and one on the same machine makes all of them look private.  Forwarded
headers are therefore accepted from the proxies that the operator names, and rejected from all other peers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from attrs import frozen

from ..oci.errors import Denied
from ..system.networks import PRIVATE, Address, Network, is_within, parse_address

_FOR, _PROTO, _FORWARDED_HOST = "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"
_FORWARDED = frozenset(
    {_FOR, _PROTO, _FORWARDED_HOST, "forwarded", "x-real-ip", "cf-connecting-ip", "true-client-ip"}
)
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")


@frozen
class ClientAddress:
    """The client of a request.

    :ivar address: None on a UNIX socket.
    :ivar scheme: of the URL that the client used, as far as a trusted proxy reports it.
    :ivar host: the host, with its port if any, that the client used.
    :ivar user: its user name, if the mirror requires a login.
    :ivar is_proxied: True if a trusted proxy passed the request on.
    """

    address: Address | None
    scheme: str
    host: str
    user: str | None = None
    is_proxied: bool = False


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
            scheme = _last_value(headers.get(_PROTO, ()), ("http", "https").__contains__) or scheme
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


def _is_host(text: str) -> bool:
    return bool(_HOST.fullmatch(text))
