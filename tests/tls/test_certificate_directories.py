"""Directories that several listeners share."""

from __future__ import annotations

from pathlib import Path

import pytest
from OpenSSL.SSL import Error
from twisted.internet.task import Clock

from dockmirror.tls.certificate_directories import CertificateDirectories
from dockmirror.tls.certificate_directory import NoUsableCertificate
from tests.issued import NOW, issue, shown

ISSUED = issue("m.example", days=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A directory with a certificate."""
    (tmp_path / "m.pem").write_bytes(ISSUED.key + ISSUED.certificate)
    return tmp_path


def test_open(path: Path) -> None:
    """A directory is opened once, by name or because none is named; when its certificates end is known."""
    directories = CertificateDirectories(path, "m.example", Clock())
    assert directories.ends() == {}
    assert directories.open(None) is directories.open(path)
    assert directories.ends() == {str(path / "m.pem"): NOW.timestamp() + 86_400}


def test_preferred(path: Path) -> None:
    """Another domain's certificate is shown from now on to clients that ask for no name, open or not yet."""
    other = issue("other.example")
    (path / "other.pem").write_bytes(other.key + other.certificate)
    directories = CertificateDirectories(path, "m.example", Clock())
    directory = directories.open(None)
    assert shown(directory, None)[0] == ISSUED.serial
    directories.prefer("other.example")
    assert shown(directory, None)[0] == other.serial
    assert shown(directory, "m.example")[0] == ISSUED.serial


def test_none(tmp_path: Path) -> None:
    """Where no directory is named, or nothing is in it, that is told."""
    with pytest.raises(NoUsableCertificate, match="the key 'certificates' names"):
        CertificateDirectories(None, "m.example", Clock()).open(None)
    directories = CertificateDirectories(None, "m.example", Clock())
    with pytest.raises(NoUsableCertificate, match="there is no certificate"):
        directories.open(tmp_path)
    assert directories.ends() == {}


def test_filled(path: Path, tmp_path: Path) -> None:
    """Where somebody fills it, the default directory may be empty, or not there; no other may."""
    empty = tmp_path / "empty"
    directories = CertificateDirectories(empty, "m.example", Clock(), filled=True)
    directory = directories.open(None)
    assert directories.ends() == {}
    with pytest.raises(NoUsableCertificate):
        directories.open(tmp_path / "other")
    with pytest.raises(Error, match="no shared cipher"):
        shown(directory, "m.example")
    empty.mkdir()
    (path / "m.pem").rename(empty / "m.pem")
    assert shown(directory, "m.example") == [ISSUED.serial]
