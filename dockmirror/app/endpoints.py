"""The endpoints in the settings: those to listen on, with TLS or without, and the TCP ports among them."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

from attrs import frozen

from ..config.settings import Settings

_CERTIFICATES = re.compile(r":certificates=((?:\\.|[^\\:])*)")
_TLS = ("ssl", "tls")


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
    """Return the endpoints of the settings; by default port 8080, on a dual-stack socket if IPv6 works."""
    return settings.listen or (default_endpoint(),)


def default_endpoint() -> str:
    """Return port 8080 of all addresses, on one dual-stack socket where the machine has IPv6."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::", 0))
    except OSError:
        return "tcp:8080"
    return "tcp:8080:interface=\\:\\:"


@frozen
class Port:
    """A TCP port.

    :ivar interface: the only address that the port is bound to; empty for all addresses.
    """

    scheme: str
    number: str
    interface: str = ""


def listening_ports(settings: Settings) -> Iterator[Port]:
    """Yield the ports in the settings, in their order; the sockets of systemd have none there."""
    for endpoint in listen_endpoints(settings):
        https = HttpsEndpoint.parse(endpoint)
        kind, *parts = re.split(r"(?<!\\):", https.transport if https else endpoint)
        options = dict(part.split("=", 1) for part in parts if "=" in part)
        number = options.get("port") or next(filter(str.isdigit, parts), "")
        if kind in ("tcp", "tcp6", *_TLS) and number:
            scheme = "https" if https or kind in _TLS else "http"
            yield Port(scheme, number, re.sub(r"\\(.)", r"\1", options.get("interface", "")))
