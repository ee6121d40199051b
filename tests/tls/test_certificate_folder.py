"""Certificates and keys brought together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from dockmirror.tls.certificate_folder import CertificateFolder, read_certificate_folder
from tests.issued import NOW, issue, shown

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
    assert folder.remarks == ()
    (served,) = folder.served
    assert (served.path.name, served.names) == (name, ["one.example"])
    assert served.ends == NOW.timestamp() + 60 * 86_400
    assert shown(served.context(), None) == [ONE.serial, AUTHORITY.serial]


def test_several(read: Read) -> None:
    """Several certificates lie side by side, each with its own key."""
    files = {"a.crt": CHAIN, "a.key": ONE.key, "b.pem": OTHER.certificate, "c.key": OTHER.key}
    assert [each.names for each in read(files).served] == [["one.example"], ["*.one.example"]]


def test_halves(read: Read) -> None:
    """A key and a certificate that are not for each other are shown to nobody; it is told of both."""
    folder = read({"a.crt": CHAIN, "a.key": OTHER.key, "ca.pem": AUTHORITY.certificate})
    assert folder.served == ()
    assert [remark.rpartition("/")[2] for remark in folder.remarks] == [
        "a.key: holds a key that no certificate beside it is for",
        "a.crt: holds a certificate that no key beside it is for",
    ]


def test_a_wrong_file(read: Read) -> None:
    """What is wrong with one file is no other file's trouble."""
    folder = read({"a.pem": CHAIN + ONE.key, "b.pem": OTHER.key[:50]})
    assert len(folder.served) == 1
    assert [remark.rpartition("/")[2] for remark in folder.remarks] == ["b.pem: ends within a block"]


def test_a_missing_file(tmp_path: Path) -> None:
    """Is told of, such as a link that leads nowhere."""
    (tmp_path / "a.pem").symlink_to("nowhere")
    (remark,) = read_certificate_folder([tmp_path / "a.pem"]).remarks
    assert remark == f"{tmp_path}/a.pem: cannot be read: No such file or directory"


def test_a_weak_key(read: Read) -> None:
    """What OpenSSL does not take is told of and shown to nobody."""
    weak = issue("weak.example", key=rsa.generate_private_key(65537, 1024))  # noqa: S505
    folder = read({"weak.pem": weak.certificate + weak.key})
    assert folder.served == ()
    assert folder.remarks[0].endswith("weak.pem: OpenSSL takes no certificate or key of this kind")


@pytest.mark.parametrize(("mode", "told"), [(0o600, 0), (0o640, 0), (0o644, 1), (0o604, 1)])
def test_who_may_read_it(tmp_path: Path, mode: int, told: int) -> None:
    """A key that others may read is used and told of; one for a group, and certificates, are not."""
    key, certificate = tmp_path / "a.key", tmp_path / "a.crt"
    key.write_bytes(ONE.key)
    key.chmod(mode)
    certificate.write_bytes(CHAIN)
    certificate.chmod(0o644)
    folder = read_certificate_folder([certificate, key])
    assert len(folder.served) == 1
    assert folder.remarks == (f"{key}: holds a key that everybody on this machine may read",) * told
