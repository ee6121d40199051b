"""Certificates and keys in PEM files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from dockmirror.tls.certificate_files import CertificateFolder, PemFile, public_key, read_certificate_folder
from tests.issued import NOW, issue, shown

ONE, OTHER = issue("one.example"), issue("other.example")


def test_parse() -> None:
    """Certificates and keys are found in their order, between whatever else people put there."""
    parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    pem = PemFile.parse(
        b"Bag Attributes\n" + parameters + ONE.key + ONE.certificate + b"\n# x\n" + OTHER.certificate
    )
    assert [each.serial_number for each in pem.certificates] == [ONE.serial, OTHER.serial]
    assert [public_key(key) for key in pem.keys] == [public_key(pem.certificates[0])]
    assert PemFile.parse(b"") == PemFile()


def test_line_ends() -> None:
    """Files from other systems are read as well."""
    assert PemFile.parse(ONE.certificate.replace(b"\n", b"\r\n")).certificates[0].serial_number == ONE.serial


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (ONE.key + ONE.certificate[:-30], "ends in the middle of a PEM block"),
        (ONE.certificate.replace(b"M", b"N"), "a certificate that cannot be read"),
        (ONE.key.replace(b"M", b"N"), "a key that cannot be read"),
        (issue("x.example", password=b"hunter2").key, "a key that is encrypted"),
    ],
    ids=["half", "certificate", "key", "encrypted"],
)
def test_wrong(data: bytes, told: str) -> None:
    """Malformed files are described without quoting them."""
    with pytest.raises(ValueError, match=told) as raised:
        PemFile.parse(data)
    assert not any(line in str(raised.value).encode() for line in ONE.key.splitlines())


def test_secret() -> None:
    """A key shows in no representation."""
    assert "key" not in repr(PemFile.parse(ONE.key)).lower()


AUTHORITY = issue()
ONE, OTHER = issue("one.example", by=AUTHORITY), issue("*.one.example", by=AUTHORITY)
CHAIN = ONE.certificate + AUTHORITY.certificate
Read = Callable[[Mapping[str, bytes]], CertificateFolder]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Reads a folder with these files."""

    def read(files: Mapping[str, bytes]) -> CertificateFolder:
        for name, data in files.items():
            (tmp_path / name).write_bytes(data)
            (tmp_path / name).chmod(0o640)
        return read_certificate_folder(tmp_path / name for name in files)

    return read


LAYOUTS = {
    "one file": ({"one.pem": ONE.key + CHAIN}, "one.pem"),
    "one file, key last": ({"one.pem": CHAIN + ONE.key}, "one.pem"),
    "lego": (
        {
            "one.example.crt": CHAIN,
            "one.example.issuer.crt": AUTHORITY.certificate,
            "one.example.key": ONE.key,
        },
        "one.example.crt",
    ),
    "certbot": (
        {
            "cert.pem": ONE.certificate,
            "chain.pem": AUTHORITY.certificate,
            "fullchain.pem": CHAIN,
            "privkey.pem": ONE.key,
        },
        "fullchain.pem",
    ),
    "acme.sh": (
        {
            "ca.cer": AUTHORITY.certificate,
            "fullchain.cer": CHAIN,
            "one.example.cer": ONE.certificate,
            "one.example.key": ONE.key,
        },
        "fullchain.cer",
    ),
}


@pytest.mark.parametrize(("files", "name"), LAYOUTS.values(), ids=list(LAYOUTS))
def test_layouts(read: Read, files: Mapping[str, bytes], name: str) -> None:
    """Each program's files are one certificate, with its whole chain, and nothing is wrong with them."""
    folder = read(files)
    assert folder.problems == ()
    (served,) = folder.chains
    assert (served.path.name, served.names) == (name, ["one.example"])
    assert served.expires_at == NOW.timestamp() + 60 * 86_400
    assert shown(served.context(), None) == [ONE.serial, AUTHORITY.serial]


def test_several(read: Read) -> None:
    """Several certificates lie side by side, each with its own key."""
    files = {"a.crt": CHAIN, "a.key": ONE.key, "b.pem": OTHER.certificate, "c.key": OTHER.key}
    assert [each.names for each in read(files).chains] == [["one.example"], ["*.one.example"]]


def test_halves(read: Read) -> None:
    """A key and a certificate that are not for each other are shown to nobody; it is told of both."""
    folder = read({"a.crt": CHAIN, "a.key": OTHER.key, "ca.pem": AUTHORITY.certificate})
    assert folder.chains == ()
    assert [remark.rpartition("/")[2] for remark in folder.problems] == [
        "a.key: holds a key without a matching certificate",
        "a.crt: holds a certificate without a matching key",
    ]


def test_a_wrong_file(read: Read) -> None:
    """A malformed file does not affect the others."""
    folder = read({"a.pem": CHAIN + ONE.key, "b.pem": OTHER.key[:50]})
    assert len(folder.chains) == 1
    assert [remark.rpartition("/")[2] for remark in folder.problems] == [
        "b.pem: ends in the middle of a PEM block"
    ]


def test_a_missing_file(tmp_path: Path) -> None:
    """A missing file, such as a dangling link, is reported."""
    (tmp_path / "a.pem").symlink_to("nowhere")
    (remark,) = read_certificate_folder([tmp_path / "a.pem"]).problems
    assert remark == f"{tmp_path}/a.pem: cannot be read: No such file or directory"


def test_a_weak_key(read: Read) -> None:
    """A certificate that OpenSSL rejects is reported and not used."""
    weak = issue("weak.example", key=rsa.generate_private_key(65537, 1024))  # noqa: S505
    folder = read({"weak.pem": weak.certificate + weak.key})
    assert folder.chains == ()
    assert folder.problems[0].endswith("weak.pem: OpenSSL does not accept this certificate or key")


@pytest.mark.parametrize(("mode", "told"), [(0o600, 0), (0o640, 0), (0o644, 1), (0o604, 1)])
def test_who_may_read_it(tmp_path: Path, mode: int, told: int) -> None:
    """A key that others may read is used and told of; one for a group, and certificates, are not."""
    key, certificate = tmp_path / "a.key", tmp_path / "a.crt"
    key.write_bytes(ONE.key)
    key.chmod(mode)
    certificate.write_bytes(CHAIN)
    certificate.chmod(0o644)
    folder = read_certificate_folder([certificate, key])
    assert len(folder.chains) == 1
    assert folder.problems == (f"{key}: holds a key that every user of this machine may read",) * told
