"""Where the mirror listens."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.application import strports
from twisted.application.service import IService, Service
from twisted.internet.interfaces import IAddress, IProtocolFactory
from twisted.protocols.tls import TLSMemoryBIOFactory

from ..config.settings import ConfigurationError
from ..tls.certificate_directories import CertificateDirectories
from ..tls.certificate_directory import NoUsableCertificate

BACKLOG = 4096
"""How many connections the system keeps until they are accepted; it may keep fewer by a limit of its own.

Twisted's own is 50: who comes in a burst would find no room, and try again after a second at the earliest.
"""
_CERTIFICATES = re.compile(r":certificates=((?:\\.|[^\\:])*)")


def listener(
    key: str, endpoint: str, site: IProtocolFactory, reactor: Any, certificates: CertificateDirectories
) -> Service:
    """The service that listens there, named after the setting.

    :param certificates: what an ``https`` endpoint shows.
    :raises ConfigurationError: when it is no endpoint, or has no certificate.
    """
    setting = key.partition(".")[0]
    try:
        secured = HttpsEndpointParser.parse(endpoint)
        if secured:
            endpoint = secured.below
            site = _Tls(certificates.open(secured.certificates), False, site, reactor)
        service: Any = IService(strports.service(_roomy(endpoint), site, reactor=reactor))
    except NoUsableCertificate as error:
        raise ConfigurationError(f"{setting}: {error}") from None
    except (ValueError, TypeError, LookupError, OSError) as error:
        raise ConfigurationError(
            f"{setting}: expected a server endpoint, not {endpoint!r}: {error}"
        ) from error
    service.setName(key)
    listening: Service = service
    return listening


class _Tls(TLSMemoryBIOFactory):
    """TLS over a factory that may turn connections away, for which Twisted's own fails in a traceback."""

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Return None, as the factory below does, for a connection that is to be closed at once."""
        wrapped = self.wrappedFactory.buildProtocol(addr)
        return None if wrapped is None else self.protocol(self, wrapped)


@frozen
class HttpsEndpointParser:
    """``https:`` in front of an endpoint: TLS over it, with the certificates of a directory.

    A port alone is one of TCP.  Twisted's own ``tls:`` listens on TCP only, and looks at its directory again
    when it is asked for an unknown name only, so that it would never show a certificate that was renewed.

    :ivar below: the endpoint that TLS is over.
    :ivar certificates: the directory, where one is named.
    """

    below: str
    certificates: Path | None = None

    @classmethod
    def parse(cls, endpoint: str) -> HttpsEndpointParser | None:
        """None where it is another endpoint."""
        scheme, _, below = endpoint.partition(":")
        if scheme != "https":
            return None
        named = _CERTIFICATES.search(below)
        below = _CERTIFICATES.sub("", below)
        return cls(
            f"tcp:{below}" if below[:1].isdigit() else below,
            Path(re.sub(r"\\(.)", r"\1", named[1])) if named else None,
        )


def _roomy(endpoint: str) -> str:
    """The endpoint with our backlog, where it has none of its own and can have one."""
    can = endpoint.partition(":")[0] in ("tcp", "tcp6", "unix", "ssl")
    return f"{endpoint}:backlog={BACKLOG}" if can and ":backlog=" not in endpoint else endpoint


def everywhere() -> str:
    """One dual-stack socket where the machine has IPv6."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::", 0))
    except OSError:
        return "tcp:8080"
    return "tcp:8080:interface=\\:\\:"
