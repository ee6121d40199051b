"""What a PEM file holds."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from attrs import field, frozen
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from OpenSSL.SSL import Context, Error
from twisted.internet.ssl import CertificateOptions, TLSVersion

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\r?\n(?:.*?-----END \1-----)?", re.DOTALL)


@frozen
class PemFile:
    """The certificates and private keys of a file, in its order; whatever else is in it is passed over."""

    certificates: tuple[x509.Certificate, ...] = ()
    keys: tuple[PrivateKeyTypes, ...] = field(default=(), repr=False)

    @classmethod
    def parse(cls, data: bytes) -> PemFile:
        """:raises ValueError: in words of ours, in which nothing of the file stands."""
        certificates, keys = [], []
        for block in _BLOCK.finditer(data):
            if not block[0].endswith(b"-----"):
                raise ValueError("ends within a block")
            if block[1] == b"CERTIFICATE":
                certificates.append(_certificate(block[0]))
            elif block[1].endswith(b"PRIVATE KEY"):
                keys.append(_key(block[0]))
        return cls(tuple(certificates), tuple(keys))


def public_key(holder: x509.Certificate | PrivateKeyTypes) -> bytes:
    """The public key that a certificate is for, or that belongs to a private key."""
    return holder.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _certificate(block: bytes) -> x509.Certificate:
    try:
        certificate = x509.load_pem_x509_certificate(block)
        public_key(certificate)
        return certificate
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("holds a certificate that cannot be read") from None


def _key(block: bytes) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(block, None)
    except TypeError:
        raise ValueError("holds a key that is encrypted") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("holds a key that cannot be read") from None


ContextForServerName = Callable[[bytes | None], Context | None]


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
    def expires_at(self) -> float:
        """When nobody takes it any more, in seconds since 1970."""
        return self.certificate.not_valid_after_utc.timestamp()

    def context(self, for_server_name: ContextForServerName | None = None) -> Context:
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


_LARGEST = 1024 * 1024


@frozen
class CertificateFolder:
    """What was found in it.

    :ivar served: the certificates whose key is there as well.
    :ivar remarks: what is wrong, a line each, which begins with the file and tells nothing of what is in it.
    """

    chains: tuple[CertificateChain, ...] = ()
    problems: tuple[str, ...] = ()


def read_certificate_folder(paths: Iterable[Path]) -> CertificateFolder:
    """What these files hold, which lie in one folder; calls that block, for small files."""
    remarks: list[str] = []
    files: dict[Path, PemFile] = {}
    for path in paths:
        try:
            files[path] = _read(path, remarks)
        except OSError as error:
            remarks.append(f"{path}: cannot be read: {error.strerror}")
        except ValueError as error:
            remarks.append(f"{path}: {error}")
    remarks += _lonely(files)
    return CertificateFolder(_whole(_together(files), remarks), tuple(remarks))


def _read(path: Path, remarks: list[str]) -> PemFile:
    with path.open("rb") as file:
        pem = PemFile.parse(file.read(_LARGEST))
    if not pem.certificates and not pem.keys:
        raise ValueError("holds neither a certificate nor a key")
    if pem.keys and path.stat().st_mode & stat.S_IROTH:
        remarks.append(f"{path}: holds a key that everybody on this machine may read")
    return pem


def _together(files: Mapping[Path, PemFile]) -> list[CertificateChain]:
    """Where several files hold the same certificate, the one with the longest chain."""
    keys = {public_key(key): key for pem in files.values() for key in pem.keys}
    longest: dict[x509.Certificate, CertificateChain] = {}
    for path, pem in files.items():
        leaf = next((each for each in pem.certificates if public_key(each) in keys), None)
        if leaf is not None:
            chain = tuple(each for each in pem.certificates if each != leaf)
            served = CertificateChain(path, leaf, chain, keys[public_key(leaf)])
            longest[leaf] = max(longest.get(leaf, served), served, key=lambda each: len(each.chain))
    return list(longest.values())


def _lonely(files: Mapping[Path, PemFile]) -> list[str]:
    """What nobody can be shown: keys without a certificate, and certificates of hosts without a key."""
    certified = {public_key(each) for pem in files.values() for each in pem.certificates}
    keys = {public_key(key) for pem in files.values() for key in pem.keys}
    return [
        f"{path}: holds a key that no certificate beside it is for"
        for path, pem in files.items()
        if any(public_key(key) not in certified for key in pem.keys)
    ] + [
        f"{path}: holds a certificate that no key beside it is for"
        for path, pem in files.items()
        if pem.certificates
        and not _is_authority(pem.certificates[0])
        and not any(public_key(each) in keys for each in pem.certificates)
    ]


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _whole(found: Iterable[CertificateChain], remarks: list[str]) -> tuple[CertificateChain, ...]:
    """Those that OpenSSL takes."""
    whole = []
    for each in found:
        try:
            each.context()
        except (Error, ValueError, TypeError):
            remarks.append(f"{each.path}: OpenSSL takes no certificate or key of this kind")
        else:
            whole.append(each)
    return tuple(whole)
