"""The endpoints in the settings: those to listen on, with TLS or without, and the TCP ports among them."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

from attrs import frozen

from ..config.notation import expand_endpoint
from ..config.settings import ConfigurationError, Settings

DEFAULT_PORT = "8080"
_DEFAULT_PORTS = {("http", "80"), ("https", "443")}
_ALL_ADDRESSES = ("", "0.0.0.0", "::")  # noqa: S104
_TLS = ("ssl", "tls")
_UNIX = re.compile(r"(?:https:)?unix:(?:address=)?([^:]+)")
_CERTIFICATES = re.compile(r":certificates=((?:\\.|[^\\:])*)")


@frozen
class HttpsEndpoint:
    """``https:`` and another endpoint: TLS over that one, with the certificates of a directory.

    A port alone stands for TCP.  Twisted's own ``tls:`` listens on TCP only, and reads its directory again
    only for an unknown name, so it would never show a renewed certificate.

    :ivar transport: the endpoint below TLS.
    :ivar certificates: the directory, or None for the one in the settings.
    """

    transport: str
    certificates: Path | None = None

    @classmethod
    def parse(cls, endpoint: str) -> HttpsEndpoint | None:
        """Return None for an endpoint without ``https:``."""
        scheme, _, transport = endpoint.partition(":")
        if scheme != "https":
            return None
        directory = _CERTIFICATES.search(transport)
        transport = _CERTIFICATES.sub("", transport)
        return cls(
            f"tcp:{transport}" if transport[:1].isdigit() else transport,
            Path(re.sub(r"\\(.)", r"\1", directory[1])) if directory else None,
        )


def listen_endpoints(settings: Settings) -> Sequence[str]:
    """Return the endpoints of the settings without short forms; by default port 8080 of all addresses."""
    all_addresses = _all_addresses()
    return [expand_endpoint(each, all_addresses) for each in settings.listen or (DEFAULT_PORT,)]


def operations_endpoint(settings: Settings) -> str:
    """Return the endpoint of metrics and status without a short form; empty if there is none."""
    return expand_endpoint(settings.operations, _all_addresses())


def _all_addresses() -> str:
    """Return the interface of a dual-stack socket, or of IPv4 alone where the machine has no IPv6."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::", 0))
    except OSError:
        return ""
    return "::"


@frozen
class Port:
    """A TCP port.

    :ivar interface: the only address that the port is bound to; empty for all addresses.
    """

    scheme: str
    number: str
    interface: str = ""

    def __str__(self) -> str:
        return f"port {self.number} of {self.interface or 'all addresses'}"

    @property
    def is_on_all_addresses(self) -> bool:
        return self.interface in _ALL_ADDRESSES

    @property
    def local_address(self) -> str:
        """The address at which this machine reaches the port."""
        return "127.0.0.1" if self.is_on_all_addresses else self.interface

    @property
    def local_host(self) -> str:
        """The local address as the host in a URL."""
        return f"[{self.local_address}]" if ":" in self.local_address else self.local_address

    def netloc(self, host: str) -> str:
        """Return the host with the port, unless that is the scheme's default."""
        return host if (self.scheme, self.number) in _DEFAULT_PORTS else f"{host}:{self.number}"


def listening_ports(settings: Settings) -> Iterator[Port]:
    """Yield the ports of ``listen``, in their order; the sockets of systemd have none there."""
    return filter(None, map(parse_port, listen_endpoints(settings)))


def bound_addresses(settings: Settings) -> Sequence[tuple[str, Port | Path]]:
    """Return the ports and UNIX sockets that the mirror binds, each with its key."""
    endpoints = [(f"listen.{number}", each) for number, each in enumerate(listen_endpoints(settings))]
    if settings.operations:
        endpoints.append(("operations", operations_endpoint(settings)))
    parsed = ((key, parse_port(each) or _parse_socket_file(each)) for key, each in endpoints)
    return [(key, address) for key, address in parsed if address is not None]


def _parse_socket_file(endpoint: str) -> Path | None:
    found = _UNIX.match(endpoint)
    return Path(found[1]) if found else None


def require_bindable(settings: Settings) -> None:
    """:raises ConfigurationError: for addresses that no other program has, and that cannot be bound."""
    addresses = bound_addresses(settings)
    problems = find_overlaps(addresses, _is_dual_stack())
    for key, each in addresses:
        if isinstance(each, Path) and each.exists() and not each.is_socket():
            problems.append(f"{key}: {each} exists and is no socket; remove it, or choose another path")
    if problems:
        raise ConfigurationError(*problems)


def find_overlaps(addresses: Sequence[tuple[str, Port | Path]], is_dual_stack: bool) -> list[str]:
    """Return a line for each address that cannot be bound beside one before it.

    :param addresses: each with its key.
    :param is_dual_stack: True if a socket of all IPv6 addresses takes those of IPv4 as well.
    """
    return [
        f"{key}: {address} cannot be bound beside {before}, {taken}; choose another one"
        for number, (key, address) in enumerate(addresses)
        for before, taken in addresses[:number]
        if _overlap(address, taken, is_dual_stack)
    ]


def _overlap(one: Port | Path, other: Port | Path, is_dual_stack: bool) -> bool:
    if isinstance(one, Path) or isinstance(other, Path):
        return one == other
    if one.number != other.number or one.number == "0":
        return False
    hosts = one.interface or "0.0.0.0", other.interface or "0.0.0.0"  # noqa: S104
    if "::" in hosts and is_dual_stack:
        return True
    is_same_family = (":" in hosts[0]) == (":" in hosts[1])
    return is_same_family and (hosts[0] == hosts[1] or not {"0.0.0.0", "::"}.isdisjoint(hosts))  # noqa: S104


def _is_dual_stack() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            return not probe.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    except OSError:
        return False


def parse_port(endpoint: str) -> Port | None:
    """Return the port of an endpoint without a short form, or None if it has none."""
    https = HttpsEndpoint.parse(endpoint)
    kind, *parts = re.split(r"(?<!\\):", https.transport if https else endpoint)
    options = dict(part.split("=", 1) for part in parts if "=" in part)
    number = options.get("port") or next(filter(str.isdigit, parts), "")
    if kind not in ("tcp", "tcp6", *_TLS) or not number:
        return None
    scheme = "https" if https or kind in _TLS else "http"
    interface = options.get("interface", "::" if kind == "tcp6" else "")
    return Port(scheme, number, re.sub(r"\\(.)", r"\1", interface))
