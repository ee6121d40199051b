"""A certificate with its key, as it is shown to clients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from attrs import field, frozen
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from OpenSSL.SSL import Context
from twisted.internet.ssl import CertificateOptions, TLSVersion

ForServerName = Callable[[bytes | None], Context | None]


@frozen(eq=False)
class CertificateChain:
    """A certificate with its key and its chain.

    :ivar path: the file in which it stands.
    """

    path: Path
    certificate: x509.Certificate = field(repr=False)
    chain: tuple[x509.Certificate, ...] = field(repr=False)
    key: PrivateKeyTypes = field(repr=False)

    @property
    def names(self) -> list[str]:
        """The host names that it is for, in lower case; some begin with ``*.``."""
        try:
            found = self.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        except x509.ExtensionNotFound:
            return []
        return [name.lower() for name in found.value.get_values_for_type(x509.DNSName)]

    @property
    def ends(self) -> float:
        """When nobody takes it any more, in seconds since 1970."""
        return self.certificate.not_valid_after_utc.timestamp()

    def context(self, for_server_name: ForServerName | None = None) -> Context:
        """TLS 1.2 or later with it; which protocols it offers is the listening factory's to say.

        :param for_server_name: gives the context to go on with, by the name that a client asks for.
        :raises OpenSSL.SSL.Error: where OpenSSL does not take it, for a key that is too short.
        """
        # Twisted's types are older than pyOpenSSL's: what it takes by now are cryptography's own.
        return CertificateOptions(
            privateKey=self.key,  # type: ignore[arg-type]
            certificate=self.certificate,  # type: ignore[arg-type]
            extraCertChain=self.chain,  # type: ignore[arg-type]
            insecurelyLowerMinimumTo=TLSVersion.TLSv1_2,
            contextForServerName=for_server_name,
        ).getContext()
