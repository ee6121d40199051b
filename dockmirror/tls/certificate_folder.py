"""Certificates and keys that lie in one folder, brought together by what they hold and not by their names.

So every program's files will do: key and certificates in one file, lego's ``NAME.crt`` and ``NAME.key``,
certbot's ``fullchain.pem`` and ``privkey.pem``, acme.sh's ``fullchain.cer`` and ``NAME.key``.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from attrs import frozen
from cryptography import x509
from OpenSSL.SSL import Error

from .certificate_chain import CertificateChain
from .pem_file import PemFile, public_key

_LARGEST = 1024 * 1024


@frozen
class CertificateFolder:
    """What was found in it.

    :ivar served: the certificates whose key is there as well.
    :ivar remarks: what is wrong, a line each, which begins with the file and tells nothing of what is in it.
    """

    served: tuple[CertificateChain, ...] = ()
    remarks: tuple[str, ...] = ()


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
