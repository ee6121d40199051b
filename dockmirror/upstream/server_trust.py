"""Verification of an upstream's TLS certificate."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import cast

from attrs import frozen
from cryptography.x509 import load_pem_x509_certificates
from OpenSSL.crypto import X509, X509Store
from OpenSSL.SSL import VERIFY_FAIL_IF_NO_PEER_CERT, VERIFY_PEER, Connection
from service_identity import CertificateError, VerificationError
from service_identity.hazmat import DNS_ID, IPAddress_ID, ServiceID, verify_service_identity
from service_identity.pyopenssl import extract_patterns
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
)
from twisted.internet.ssl import TLSVersion, optionsForClientTLS
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.web.client import HostnameCachingHTTPSPolicy
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

_VERIFY_ERRORS = {
    9: "is not valid yet",
    10: "has expired",
    18: "is self-signed",
    19: "is signed by an untrusted authority",
    20: "is signed by an untrusted authority",
    21: "is signed by an untrusted authority",
}
"""Common results of OpenSSL's verification (``X509_V_ERR_…`` in x509_vfy.h), in words."""


class UntrustedError(Exception):
    """The certificate of a server is not trusted; the message says why."""


def make_tls_policy(ca_file: str | None = None) -> IPolicyForHTTPS:
    """Return a policy for HTTP/1.1 over TLS 1.2 or later; it requires a trusted certificate with the host's
    name.

    :param ca_file: further trusted certificates, in PEM.
    :raises OSError: when it cannot be read.
    :raises ValueError: when it holds no certificate.
    """
    authorities = load_pem_x509_certificates(Path(ca_file).read_bytes()) if ca_file is not None else []
    return HostnameCachingHTTPSPolicy(_TlsPolicy([X509.from_cryptography(ca) for ca in authorities]))


@implementer(IPolicyForHTTPS)
@frozen
class _TlsPolicy:
    authorities: Iterable[X509]

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:
        host = hostname.decode("ascii").removesuffix(".")
        literal = isIPAddress(host) or isIPv6Address(host)
        options = optionsForClientTLS(
            host,
            acceptableProtocols=[b"http/1.1"],
            extraCertificateOptions={"raiseMinimumTo": TLSVersion.TLSv1_2},
        )
        return _VerifyingCreator(options, self.authorities, IPAddress_ID(host) if literal else DNS_ID(host))


@implementer(IOpenSSLClientConnectionCreator)
@frozen
class _VerifyingCreator:
    """Verifies in place of Twisted: Twisted 26.10 accepts a trusted certificate without names for any
    host.
    """

    options: IOpenSSLClientConnectionCreator
    authorities: Iterable[X509]
    identity: ServiceID

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> Connection:
        connection = self.options.clientConnectionForTLS(tlsProtocol)
        store = cast(X509Store, connection.get_context().get_cert_store())
        for authority in self.authorities:
            store.add_cert(authority)
        connection.set_verify(VERIFY_PEER | VERIFY_FAIL_IF_NO_PEER_CERT, self._verify)
        return connection

    def _verify(
        self, connection: Connection, certificate: X509, error: int, depth: int, trusted: int
    ) -> bool:
        try:
            if not trusted:
                whose = "its certificate" if depth == 0 else "a certificate in its chain"
                raise UntrustedError(
                    f"{whose} {_VERIFY_ERRORS.get(error, f'fails verification (OpenSSL: {error})')}"
                )
            if depth == 0:
                verify_service_identity(extract_patterns(certificate), [self.identity], [])
        except (UntrustedError, VerificationError, CertificateError, ValueError):
            connection.get_app_data().failVerification(Failure())
            return False
        return True
