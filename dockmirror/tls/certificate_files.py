"""Read certificates and keys from PEM files, and pair them by their contents and not by their names.

This accepts the files of every program: certificate and key in one file, lego's ``NAME.crt`` and
``NAME.key``, certbot's ``fullchain.pem`` and ``privkey.pem``, acme.sh's ``fullchain.cer`` and ``NAME.key``.
"""

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

_UNREADABLE = ValueError, TypeError, x509.UnsupportedGeneralNameType, x509.DuplicateExtension
"""Raised by cryptography when it parses extensions, among them the names, as late as they are read."""


@frozen
class PemFile:
    """The certificates and private keys of a file in their order; other blocks are ignored."""

    certificates: tuple[x509.Certificate, ...] = ()
    keys: tuple[PrivateKeyTypes, ...] = field(default=(), repr=False)

    @classmethod
    def parse(cls, data: bytes) -> PemFile:
        """:raises ValueError: when it is malformed; the message quotes nothing of the file."""
        certificates, keys = [], []
        for block in _BLOCK.finditer(data):
            if not block[0].endswith(b"-----"):
                raise ValueError("ends in the middle of a PEM block")
            if block[1] == b"CERTIFICATE":
                certificates.append(_certificate(block[0]))
            elif block[1].endswith(b"PRIVATE KEY"):
                keys.append(_key(block[0]))
        return cls(tuple(certificates), tuple(keys))


def public_key(holder: x509.Certificate | PrivateKeyTypes) -> bytes:
    """Return the public key of a certificate or a private key."""
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

    :ivar path: the file that it was read from.
    """

    path: Path
    certificate: x509.Certificate = field(repr=False)
    chain: tuple[x509.Certificate, ...] = field(repr=False)
    key: PrivateKeyTypes = field(repr=False)

    @property
    def names(self) -> list[str]:
        """The host names of the certificate in lower case; some begin with ``*.``."""
        try:
            candidates = self.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        except x509.ExtensionNotFound:
            return []
        return [name.lower() for name in candidates.value.get_values_for_type(x509.DNSName)]

    @property
    def expires_at(self) -> float:
        """The end of its validity, in seconds since 1970."""
        return self.certificate.not_valid_after_utc.timestamp()

    def context(self, for_server_name: ContextForServerName | None = None) -> Context:
        """Return a context for TLS 1.2 or later; the listening factory adds the protocols (ALPN).

        :param for_server_name: returns the context for the server name that a client sends.
        :raises OpenSSL.SSL.Error: when OpenSSL rejects it, as for a key that is too short.
        """
        # Twisted's types are older than pyOpenSSL's: what it takes by now are cryptography's own.
        return CertificateOptions(
            privateKey=self.key,  # type: ignore[arg-type]
            certificate=self.certificate,  # type: ignore[arg-type]
            extraCertChain=self.chain,  # type: ignore[arg-type]
            insecurelyLowerMinimumTo=TLSVersion.TLSv1_2,
            contextForServerName=for_server_name,
        ).getContext()


_MAX_BYTES = 1024 * 1024


@frozen
class CertificateFolder:
    """The certificates of a folder.

    :ivar chains: the certificates whose key is there as well.
    :ivar problems: one line each, which begins with the file and quotes nothing of its contents.
    """

    chains: tuple[CertificateChain, ...] = ()
    problems: tuple[str, ...] = ()


def read_certificate_folder(paths: Iterable[Path]) -> CertificateFolder:
    """Read the files of one folder; blocks, but only for small files."""
    problems: list[str] = []
    files: dict[Path, PemFile] = {}
    for path in paths:
        try:
            files[path] = _read(path, problems)
        except OSError as error:
            problems.append(f"{path}: cannot be read: {error.strerror}")
        except ValueError as error:
            problems.append(f"{path}: {error}")
    problems += _find_unpaired(files)
    return CertificateFolder(_filter_usable(_pair_keys(files), problems), tuple(problems))


def _read(path: Path, problems: list[str]) -> PemFile:
    with path.open("rb") as file:
        pem = PemFile.parse(file.read(_MAX_BYTES))
    if not pem.certificates and not pem.keys:
        raise ValueError("holds neither a certificate nor a key")
    if pem.keys and path.stat().st_mode & stat.S_IROTH:
        problems.append(f"{path}: holds a key that every user of this machine may read")
    return pem


def _pair_keys(files: Mapping[Path, PemFile]) -> list[CertificateChain]:
    """Pair certificates with their keys; if several files hold a certificate, use the longest chain."""
    keys = {public_key(key): key for pem in files.values() for key in pem.keys}
    longest: dict[x509.Certificate, CertificateChain] = {}
    for path, pem in files.items():
        leaf = next((each for each in pem.certificates if public_key(each) in keys), None)
        if leaf is not None:
            others = tuple(each for each in pem.certificates if each != leaf)
            chain = CertificateChain(path, leaf, others, keys[public_key(leaf)])
            longest[leaf] = max(longest.get(leaf, chain), chain, key=lambda each: len(each.chain))
    return list(longest.values())


def _find_unpaired(files: Mapping[Path, PemFile]) -> list[str]:
    """Report keys without a certificate, and host certificates without a key."""
    certified = {public_key(each) for pem in files.values() for each in pem.certificates}
    keys = {public_key(key) for pem in files.values() for key in pem.keys}
    return [
        f"{path}: holds a key without a matching certificate"
        for path, pem in files.items()
        if any(public_key(key) not in certified for key in pem.keys)
    ] + [
        f"{path}: holds a certificate without a matching key"
        for path, pem in files.items()
        if pem.certificates
        and not _is_authority(pem.certificates[0])
        and not any(public_key(each) in keys for each in pem.certificates)
    ]


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, *_UNREADABLE):
        return False


def _filter_usable(
    candidates: Iterable[CertificateChain], problems: list[str]
) -> tuple[CertificateChain, ...]:
    """Return the chains that OpenSSL accepts, and whose names can be read."""
    usable = []
    for each in candidates:
        try:
            _ = each.names
        except _UNREADABLE:
            problems.append(f"{each.path}: holds a certificate whose names cannot be read")
            continue
        try:
            each.context()
        except (Error, ValueError, TypeError):
            problems.append(f"{each.path}: OpenSSL does not accept this certificate or key")
        else:
            usable.append(each)
    return tuple(usable)
