"""Certificates as their files have them, and clients that look at which one they are shown."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID
from OpenSSL.SSL import TLS_CLIENT_METHOD, Connection, Context, WantReadError

from dockmirror.tls.certificate_directory import CertificateDirectory

NOW = datetime(2026, 11, 24, tzinfo=UTC)


@frozen
class Issued:
    """A certificate, in PEM, and its key."""

    certificate: bytes
    key: bytes
    signing: CertificateIssuerPrivateKeyTypes

    @property
    def serial(self) -> int:
        """The serial number of the certificate."""
        return x509.load_pem_x509_certificate(self.certificate).serial_number


def issue(
    *names: str, days: float = 60, by: Issued | None = None, password: bytes = b"", key: Any = None
) -> Issued:
    """A certificate for these names and addresses, or, without any, an authority's.

    :param days: after ``NOW``, until it ends.
    :param by: the authority; the certificate is signed by itself where there is none.
    """
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = _name(names[0] if names else "authority")
    issuer = x509.load_pem_x509_certificate(by.certificate).subject if by else subject
    builder = x509.CertificateBuilder(
        issuer,
        subject,
        key.public_key(),
        x509.random_serial_number(),
        NOW - timedelta(900),
        NOW + timedelta(days),
    )
    if names:
        kinds = [x509.IPAddress(ip_address(n)) if n[0].isdigit() else x509.DNSName(n) for n in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(kinds), critical=False)
    else:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    certificate = builder.sign(by.signing if by else key, SHA256())
    return Issued(
        certificate.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption),
        key,
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def shown(server: CertificateDirectory | Context, name: str | None) -> list[int]:
    """The serial numbers of the chain that a client is shown who asks for that name, in memory."""
    here = Connection(Context(TLS_CLIENT_METHOD))
    there = Connection(server) if isinstance(server, Context) else server.serverConnectionForTLS(object())
    if name is not None:
        here.set_tlsext_host_name(name.encode())
    here.set_connect_state()
    there.set_accept_state()
    there.set_app_data(_Protocol)
    for _ in range(4):
        for one, other in ((here, there), (there, here)):
            _shake(one, other)
    return [each.serial_number for each in here.get_peer_cert_chain(as_cryptography=True) or []]


class _Protocol:
    """The callback that Twisted's contexts ask for protocols."""

    class factory:  # noqa: N801
        wrappedFactory = None


def _shake(one: Connection, other: Connection) -> None:
    with suppress(WantReadError):
        one.do_handshake()
    with suppress(WantReadError):
        other.bio_write(one.bio_read(65536))
