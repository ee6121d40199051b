"""Certificates and keys in PEM files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from ssl import DER_cert_to_PEM_cert, PEM_cert_to_DER_cert

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from dockmirror.tls.certificate_files import CertificateFolder, PemFile, public_key, read_certificate_folder
from tests.issued import NOW, issue, shown

AUTHORITY = issue()
ONE, OTHER = issue("one.example", by=AUTHORITY), issue("*.one.example", by=AUTHORITY)
CHAIN = ONE.certificate + AUTHORITY.certificate
TWO = issue("two.example")
UNREADABLE_NAME = DER_cert_to_PEM_cert(
    PEM_cert_to_DER_cert(TWO.certificate.decode()).replace(b"\x82\x0btwo.example", b"\x82\x0btwo\xffexample")
).encode()


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_certificates_and_keys_are_found_in_their_order(newline: bytes) -> None:
    """Between other text and blocks; a key shows in no representation."""
    parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    data = b"Bag Attributes\n" + parameters + ONE.key + ONE.certificate + b"\n# x\n" + OTHER.certificate
    pem = PemFile.parse(data.replace(b"\n", newline))
    assert [each.serial_number for each in pem.certificates] == [ONE.serial, OTHER.serial]
    assert [public_key(key) for key in pem.keys] == [public_key(pem.certificates[0])]
    assert "key" not in repr(pem).lower()
    assert PemFile.parse(b"") == PemFile()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (ONE.key + ONE.certificate[:-30], "ends in the middle of a PEM block"),
        (ONE.certificate.replace(b"M", b"N"), "a certificate that cannot be read"),
        (ONE.key.replace(b"M", b"N"), "a key that cannot be read"),
        (issue("x.example", password=b"hunter2").key, "a key that is encrypted"),
    ],
    ids=["half", "certificate", "key", "encrypted"],
)
def test_malformed_files_are_described(data: bytes, reason: str) -> None:
    """Without quoting them."""
    with pytest.raises(ValueError, match=reason) as raised:
        PemFile.parse(data)
    assert not any(line in str(raised.value).encode() for line in ONE.key.splitlines())


Read = Callable[[Mapping[str, bytes]], CertificateFolder]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Return a function that reads a folder with these files."""

    def read(files: Mapping[str, bytes]) -> CertificateFolder:
        for name, data in files.items():
            (tmp_path / name).write_bytes(data)
            (tmp_path / name).chmod(0o640)
        return read_certificate_folder(tmp_path / name for name in files)

    return read


LAYOUTS: dict[str, dict[str, bytes]] = {
    "one file": {"one.pem": ONE.key + CHAIN},
    "one file, key last": {"one.pem": CHAIN + ONE.key},
    "lego": {"one.crt": CHAIN, "one.issuer.crt": AUTHORITY.certificate, "one.key": ONE.key},
    "certbot": {
        "fullchain.pem": CHAIN,
        "cert.pem": ONE.certificate,
        "chain.pem": AUTHORITY.certificate,
        "privkey.pem": ONE.key,
    },
    "acme.sh": {
        "fullchain.cer": CHAIN,
        "ca.cer": AUTHORITY.certificate,
        "one.example.cer": ONE.certificate,
        "one.example.key": ONE.key,
    },
}
"""The files of programs; the first one has the certificate with its chain."""


@pytest.mark.parametrize("files", LAYOUTS.values(), ids=list(LAYOUTS))
def test_the_files_of_each_program_are_one_certificate(read: Read, files: Mapping[str, bytes]) -> None:
    for folder in (read(files), read(dict(sorted(files.items())))):
        assert folder.problems == ()
        (chain,) = folder.chains
        assert (chain.path.name, chain.names) == (next(iter(files)), ["one.example"])
        assert chain.expires_at == NOW.timestamp() + 60 * 86_400
        assert shown(chain.context(), None) == [ONE.serial, AUTHORITY.serial]


def problems_of(folder: CertificateFolder) -> list[str]:
    return [problem.rpartition("/")[2] for problem in folder.problems]


def test_each_certificate_has_its_own_key(read: Read) -> None:
    """A key and a certificate that do not match are reported; a malformed file does not affect the others."""
    folder = read({"a.crt": CHAIN, "a.key": ONE.key, "b.pem": OTHER.certificate, "c.key": OTHER.key})
    assert [each.names for each in folder.chains] == [["one.example"], ["*.one.example"]]
    folder = read({"a.crt": CHAIN, "a.key": OTHER.key, "ca.pem": AUTHORITY.certificate})
    assert folder.chains == ()
    assert problems_of(folder) == [
        "a.key: holds a key without a matching certificate",
        "a.crt: holds a certificate without a matching key",
    ]
    folder = read({"a.pem": CHAIN + ONE.key, "b.pem": OTHER.key[:50]})
    assert len(folder.chains) == 1
    assert problems_of(folder) == ["b.pem: ends in the middle of a PEM block"]


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    """Such as a dangling link."""
    (tmp_path / "a.pem").symlink_to("nowhere")
    (problem,) = read_certificate_folder([tmp_path / "a.pem"]).problems
    assert problem == f"{tmp_path}/a.pem: cannot be read: No such file or directory"


def test_a_certificate_that_openssl_rejects_is_not_used(read: Read) -> None:
    """It is reported."""
    weak = issue("weak.example", key=rsa.generate_private_key(65537, 1024))  # noqa: S505
    folder = read({"weak.pem": weak.certificate + weak.key})
    assert folder.chains == ()
    assert folder.problems[0].endswith("weak.pem: OpenSSL does not accept this certificate or key")


def test_a_certificate_whose_names_cannot_be_read_is_not_used(read: Read) -> None:
    """Its file and that of a certificate without a key are reported, and the others are used."""
    folder = read({"one.pem": ONE.key + CHAIN, "two.pem": TWO.key + UNREADABLE_NAME})
    assert [each.path.name for each in folder.chains] == ["one.pem"]
    assert problems_of(folder) == ["two.pem: holds a certificate whose names cannot be read"]
    assert problems_of(read({"two.pem": UNREADABLE_NAME})) == [
        "two.pem: holds a certificate without a matching key"
    ]


def test_extensions_of_a_chain_need_not_be_readable(read: Read) -> None:
    """Clients judge the certificates of authorities; the mirror only passes them on."""
    folder = read({"one.pem": ONE.key + ONE.certificate + UNREADABLE_NAME})
    assert folder.problems == ()
    assert shown(folder.chains[0].context(), None) == [ONE.serial, TWO.serial]


@pytest.mark.parametrize(("mode", "count"), [(0o600, 0), (0o640, 0), (0o644, 1), (0o604, 1)])
def test_a_key_that_others_may_read_is_reported(tmp_path: Path, mode: int, count: int) -> None:
    """It is used; a group may read it, and everybody a certificate."""
    key, certificate = tmp_path / "a.key", tmp_path / "a.crt"
    key.write_bytes(ONE.key)
    key.chmod(mode)
    certificate.write_bytes(CHAIN)
    certificate.chmod(0o644)
    folder = read_certificate_folder([certificate, key])
    assert len(folder.chains) == 1
    assert folder.problems == (f"{key}: holds a key that every user of this machine may read",) * count
