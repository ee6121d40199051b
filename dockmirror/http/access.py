"""Who may use the mirror at all, decided before anything else is done.

A proxy in front hides who asks, and one on the same machine makes the whole world look private; so
forwarded headers are believed from named peers, and refused from all others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from attrs import frozen

from ..oci.errors import Denied
from ..system.networks import PRIVATE, Address, Network, is_within, parse_address

_FORWARDED = (
    "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded", "X-Real-IP", "CF-Connecting-IP",
    "True-Client-IP",
)  # fmt: skip
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")
Headers = Callable[[str], Sequence[str]]


@frozen
class ClientAddress:
    """Who is asking.

    :ivar address: None where it came by a UNIX socket.
    :ivar scheme: of the address that it used, as far as a proxy that is believed told us.
    :ivar host: the host, and the port where it named one, that it used.
    :ivar user: by which name, where names are asked for.
    """

    address: Address | None
    scheme: str
    host: str
    user: str | None = None


@frozen
class NetworkAccess:
    """The networks whose clients are served, and the proxies that are believed.

    :ivar unix: whether a proxy that comes by a UNIX socket is believed.
    """

    networks: tuple[Network, ...] = PRIVATE
    trust_proxy: tuple[Network, ...] = ()
    unix: bool = False

    def client(self, peer: str | None, secure: bool, headers: Headers) -> ClientAddress:
        """The client behind a connection.

        :param peer: the address at the other end; None for a UNIX socket.
        :param headers: the values of the request's headers of a name.
        :raises Denied: when that cannot be told, naming the setting that decides it.
        """
        address = None if peer is None else parse_address(peer)
        scheme, host = "https" if secure else "http", _first(headers("Host"))
        if any(headers(name) for name in _FORWARDED):
            if not self._believed(address):
                raise Denied(
                    "this request came through a proxy that is not believed: the operator may name its"
                    " address in 'trust_proxy'"
                )
            if not headers("X-Forwarded-For"):
                raise Denied("the proxy in front does not tell who asks: it has to send 'X-Forwarded-For'")
            address = self._origin(address, headers("X-Forwarded-For"))
            scheme = _last(headers("X-Forwarded-Proto"), ("http", "https").__contains__) or scheme
            host = _last(headers("X-Forwarded-Host"), _is_host) or host
        return ClientAddress(address, scheme, host)

    def check(self, client: ClientAddress) -> None:
        """:raises Denied: when it is not to be served, naming the setting that decides it."""
        if client.address is not None and not is_within(client.address, self.networks):
            raise Denied("this mirror does not serve your network: the operator may name it in 'networks'")

    def _believed(self, address: Address | None) -> bool:
        return self.unix if address is None else is_within(address, self.trust_proxy)

    def _origin(self, peer: Address | None, lines: Sequence[str]) -> Address | None:
        """Read from the right: the last address that no believed proxy put there."""
        address = peer
        for hop in reversed([hop for line in lines for hop in line.split(",") if hop.strip()]):
            try:
                address = parse_address(_bare(hop.strip()))
            except ValueError:
                raise Denied("the 'X-Forwarded-For' of this request holds what is no address") from None
            if not self._believed(address):
                break
        return address


def _bare(hop: str) -> str:
    """The address of a hop without its port: ``1.2.3.4:5``, ``[::1]:5``."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop


def _first(values: Sequence[str]) -> str:
    return values[0].strip() if values else ""


def _last(lines: Sequence[str], valid: Callable[[str], bool]) -> str | None:
    """What the nearest proxy said.

    :raises Denied: when it makes no sense.
    """
    values = [value.strip() for line in lines for value in line.split(",")]
    if not values:
        return None
    if not valid(values[-1]):
        raise Denied("a forwarded header of this request makes no sense")
    return values[-1]


def _is_host(text: str) -> bool:
    return bool(_HOST.fullmatch(text))
