"""The sockets that the mirror listens on, with TLS or without."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IAddress, IProtocolFactory, IStreamServerEndpoint, ITransport
from twisted.logger import Logger
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory
from twisted.python.failure import Failure

from ..config.settings import ConfigurationError
from ..http.request_reader import is_plain_http, plain_http_response
from ..tls.certificate_directory import CertificateDirectories, NoUsableCertificate
from .endpoints import HttpsEndpoint

BACKLOG = 4096
"""Connections that the kernel queues until the mirror accepts them; its own limit may be lower.

Twisted's default is 50: a burst of clients overflows it, and the others retry after a second at the earliest.
"""
_log = Logger()


class Listener(Service):
    """Listens on an endpoint.

    Twisted's own service for that imports its service for clients, which takes a fiftieth of a start.
    """

    def __init__(self, endpoint: IStreamServerEndpoint, factory: IProtocolFactory) -> None:
        self._endpoint = endpoint
        self._factory = factory
        self._listening: Deferred[Any] = succeed(None)

    def privilegedStartService(self) -> None:
        """:raises Exception: when the endpoint cannot listen."""
        super().privilegedStartService()
        failures: list[Failure] = []
        self._listening = self._endpoint.listen(self._factory)
        self._listening.addErrback(failures.append)
        for failure in failures:
            failure.raiseException()
        self._listening.addCallback(self._check, failures)

    def _check(self, port: Any, failures: list[Failure]) -> Any:
        """Log the failure of an endpoint that failed later than at once."""
        for failure in failures:
            _log.failure("{name}: cannot listen", failure, name=self.name)
        return port

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return self._listening.addCallback(lambda port: port and port.stopListening())


def make_listener(
    key: str, endpoint: str, site: IProtocolFactory, reactor: Any, certificates: CertificateDirectories
) -> Service:
    """Return the service that listens on an endpoint.

    :param key: the setting that names the endpoint, for errors; it becomes the service's name.
    :param certificates: opens the certificates of an ``https`` endpoint.
    :raises ConfigurationError: when the endpoint is invalid, or has no certificate.
    """
    setting = key.partition(".")[0]
    try:
        secured = HttpsEndpoint.parse(endpoint)
        if secured:
            endpoint = secured.transport
            site = _TlsFactory(certificates.open(secured.certificates), False, site, reactor)
        service = Listener(serverFromString(reactor, _with_backlog(endpoint)), site)
    except NoUsableCertificate as error:
        raise ConfigurationError(f"{setting}: {error}") from None
    except (ValueError, TypeError, LookupError, OSError) as error:
        is_missing = isinstance(error, LookupError) and endpoint.startswith("systemd:")
        reason = "systemd passed no such socket; start it with its socket unit" if is_missing else error
        raise ConfigurationError(
            f"{setting}: expected a server endpoint, not {endpoint!r}: {reason}"
        ) from error
    service.setName(key)
    return service


def make_listeners(
    endpoints: Iterable[str], site: IProtocolFactory, certificates: CertificateDirectories, reactor: Any
) -> list[Service]:
    """Return the services that listen for clients, one for each endpoint; see ``make_listener``."""
    return [
        make_listener(f"listen.{number}", endpoint, site, reactor, certificates)
        for number, endpoint in enumerate(endpoints)
    ]


class _TlsConnection(BufferingTLSTransport):
    """A TLS connection; a client that speaks plain HTTP gets a response in plain HTTP."""

    transport: ITransport
    _is_first = True

    def dataReceived(self, data: bytes) -> None:
        is_first, self._is_first = self._is_first, False
        if is_first and is_plain_http(data):
            self.transport.write(plain_http_response())
            self.transport.loseConnection()
        else:
            super().dataReceived(data)


class _TlsFactory(TLSMemoryBIOFactory):
    """TLS over a factory that may reject connections, for which Twisted's own class raises an exception."""

    noisy = False
    protocol = _TlsConnection

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Return None, as the wrapped factory does, for a connection to close at once."""
        wrapped = self.wrappedFactory.buildProtocol(addr)
        return None if wrapped is None else self.protocol(self, wrapped)


def _with_backlog(endpoint: str) -> str:
    can_have_backlog = endpoint.partition(":")[0] in ("tcp", "tcp6", "unix", "ssl")
    return f"{endpoint}:backlog={BACKLOG}" if can_have_backlog and ":backlog=" not in endpoint else endpoint
