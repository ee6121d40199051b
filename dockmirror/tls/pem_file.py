"""What a PEM file holds."""

from __future__ import annotations

import re

from attrs import field, frozen
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

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
