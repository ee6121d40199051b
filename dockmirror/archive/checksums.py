"""Checksums of an archive's files, as ``sha256sum --check`` reads them, and their signature.

The signature is the one that ``cosign verify-blob --key`` checks: of the checksums, in base64.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import BinaryIO

from .archive_files import ArchiveRefused

SUFFIX, SIGNATURE_SUFFIX = ".sha256", ".sha256.sig"
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
_PIECE = 1024 * 1024
Sign = Callable[[bytes], bytes]
"""Returns the signature of some bytes."""


def load_signer(pem: bytes) -> Sign:
    """Return what signs with a private key of RSA, ECDSA or Ed25519 in PEM.

    :raises ValueError: when it is none, or is encrypted.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem, None)
    except TypeError:
        raise ValueError("expected a private key that is not encrypted") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("expected a private key of RSA, ECDSA or Ed25519 in PEM") from None
    match key:
        case ed25519.Ed25519PrivateKey():
            return key.sign
        case ec.EllipticCurvePrivateKey():
            return lambda data: key.sign(data, ec.ECDSA(SHA256()))
        case rsa.RSAPrivateKey():
            return lambda data: key.sign(data, padding.PKCS1v15(), SHA256())
    raise ValueError("expected a private key of RSA, ECDSA or Ed25519 in PEM")


def format_checksums(sums: Mapping[str, str]) -> bytes:
    """Return the lines for files, whose sums are given by their names."""
    return "".join(f"{digest}  {name}\n" for name, digest in sums.items()).encode()


def parse_checksums(data: bytes) -> dict[str, str]:
    """Return the sums by the names of the files.

    :raises ArchiveRefused: when a line is malformed.
    """
    found = {}
    for line in data.decode("utf-8", "replace").splitlines():
        parts = _LINE.fullmatch(line)
        if parts is None:
            raise ArchiveRefused(f"a line of its checksums is malformed: {line[:80]!r}")
        found[parts[2]] = parts[1]
    return found


def format_signature(sign: Sign, checksums: bytes) -> bytes:
    return b64encode(sign(checksums)) + b"\n"


def check_signature(checksums: bytes, signature: bytes, has_signed: Callable[[bytes, bytes], bool]) -> None:
    """:raises ArchiveRefused: when the signature of the checksums is not that of the trusted key."""
    try:
        raw = b64decode(signature, validate=False)
    except ValueError:
        raw = b""
    if not has_signed(checksums, raw):
        raise ArchiveRefused("its checksums are not signed with the given key")


def hash_file(file: BinaryIO) -> str:
    """Return the sum of an open file, from its beginning to its end."""
    file.seek(0)
    hashed = sha256()
    while data := file.read(_PIECE):
        hashed.update(data)
    return hashed.hexdigest()


def check_file_sum(name: str, file: BinaryIO, sums: Mapping[str, str]) -> None:
    """:raises ArchiveRefused: when the file has another sum, or none is given for it."""
    if name not in sums:
        raise ArchiveRefused(f"the checksums do not list {name}")
    if hash_file(file) != sums[name]:
        raise ArchiveRefused(f"{name} does not match its checksum")
