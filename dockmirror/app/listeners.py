"""The sockets that the mirror listens on, and the certificates that it shows there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from time import time
from typing import Any

from twisted.application import strports
from twisted.application.service import IService, Service
from twisted.internet.interfaces import IAddress, IProtocolFactory
from twisted.protocols.tls import TLSMemoryBIOFactory

from ..config.settings import ConfigurationError, Settings
from ..system.reactor_services import run_in_daemon_thread
from ..tls.acme_renewal import AcmeStore, CertificateRenewal
from ..tls.certificate_directory import CertificateDirectories, NoUsableCertificate
from .acme_bucket import ProofPublisher
from .cache_settings import bucket_address
from .endpoints import HttpsEndpoint
from .naming import certificate_names

BACKLOG = 4096
"""Connections that the kernel queues until the mirror accepts them; its own limit may be lower.

Twisted's default is 50: a burst of clients overflows it, and the others retry after a second at the earliest.
"""


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
        service: Any = IService(strports.service(_with_backlog(endpoint), site, reactor=reactor))
    except NoUsableCertificate as error:
        raise ConfigurationError(f"{setting}: {error}") from None
    except (ValueError, TypeError, LookupError, OSError) as error:
        is_missing = isinstance(error, LookupError) and endpoint.startswith("systemd:")
        reason = "systemd passed no such socket; start it with its socket unit" if is_missing else error
        raise ConfigurationError(
            f"{setting}: expected a server endpoint, not {endpoint!r}: {reason}"
        ) from error
    service.setName(key)
    listening: Service = service
    return listening


def make_listeners(
    endpoints: Iterable[str], site: IProtocolFactory, certificates: CertificateDirectories, reactor: Any
) -> list[Service]:
    """Return the services that listen for clients, one for each endpoint; see ``make_listener``."""
    return [
        make_listener(f"listen.{number}", endpoint, site, reactor, certificates)
        for number, endpoint in enumerate(endpoints)
    ]


class _TlsFactory(TLSMemoryBIOFactory):
    """TLS over a factory that may reject connections, for which Twisted's own class raises an exception."""

    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Return None, as the wrapped factory does, for a connection to close at once."""
        wrapped = self.wrappedFactory.buildProtocol(addr)
        return None if wrapped is None else self.protocol(self, wrapped)


def _with_backlog(endpoint: str) -> str:
    can_have_backlog = endpoint.partition(":")[0] in ("tcp", "tcp6", "unix", "ssl")
    return f"{endpoint}:backlog={BACKLOG}" if can_have_backlog and ":backlog=" not in endpoint else endpoint


def missing_certificates(settings: Settings) -> Sequence[Path]:
    """Return the files of the certificates that the authority has not issued yet."""
    if settings.acme is None or settings.certificates is None:
        return ()
    store = AcmeStore(settings.certificates)
    return [
        store.certificate_path(name)
        for name in certificate_names(settings)
        if not store.certificate_path(name).exists()
    ]


def make_certificate_renewal(
    settings: Settings, current_settings: Callable[[], Settings], reactor: Any
) -> Service:
    """Return the service that has an authority issue the certificates; one process runs it for all.

    :param current_settings: returns the settings whose names need certificates, now and after a reload.
    :raises ConfigurationError: when the extra is not installed, or there is no name to certify.
    """

    try:
        from ..tls.acme_client import AcmeClient
    except ImportError:
        raise ConfigurationError("acme: needs the extra 'acme': pip install 'dockmirror[acme]'") from None
    if settings.domain == "localhost":
        raise ConfigurationError("acme: needs a public 'domain': no authority certifies localhost")
    assert settings.acme is not None
    assert settings.certificates is not None
    store = AcmeStore(settings.certificates)
    address = bucket_address(settings)
    publish = ProofPublisher(store, address, time).publish_proofs if address else store.publish_proofs
    authority = AcmeClient(settings.acme_directory, settings.acme, settings.acme_ca_file, store, publish)
    return CertificateRenewal(
        lambda: certificate_names(current_settings()),
        store.renewal_time,
        lambda name: run_in_daemon_thread(reactor, partial(authority.issue, name)),
        reactor,
    )
