"""Directories whose certificates are renewed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from OpenSSL.SSL import Error
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from dockmirror.tls.certificate_directory import (
    CertificateDirectories,
    CertificateDirectory,
    NoUsableCertificate,
    SniSelector,
)
from dockmirror.tls.certificate_files import read_certificate_folder
from tests.issued import NOW, Issued, issue, shown
from tests.stacks import logged

DAY = 86_400
FIRST, SECOND = issue("m.example"), issue("m.example")
OTHER = issue("ghcr.m.example")


class Kept:
    """A directory, and a clock that begins at ``NOW``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = Clock()
        self.clock.advance(NOW.timestamp())
        self.directory = CertificateDirectory(path, "m.example", self.clock)

    def write(self, name: str, *parts: bytes) -> None:
        """A file put in the place of another, at once."""
        beside = self.path / "written"
        beside.write_bytes(b"".join(parts))
        beside.chmod(0o600)
        beside.rename(self.path / name)

    def put(self, name: str, issued: Issued) -> None:
        """A file with key and certificate."""
        self.write(name, issued.key, issued.certificate)

    def shown(self, name: str | None = "m.example", after: float = 1) -> int:
        """Which certificate the next client sees, so many seconds later."""
        self.clock.advance(after)
        return shown(self.directory, name)[0]


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    """With a certificate in it that is shown."""
    kept = Kept(tmp_path)
    kept.put("m.pem", FIRST)
    assert kept.shown() == FIRST.serial
    return kept


def test_interface(kept: Kept) -> None:
    """It is what Twisted asks for connections."""
    verifyObject(IOpenSSLServerConnectionCreator, kept.directory)


def test_renewed(kept: Kept) -> None:
    """The next client sees the new certificate, a second after the last look at the earliest."""
    kept.put("m.pem", SECOND)
    assert kept.shown(after=0.9) == FIRST.serial
    with logged() as texts:
        assert kept.shown(after=0.2) == SECOND.serial
    (text,) = texts
    assert "m.pem: certificate for m.example, valid until 2027-01-23T00:00Z" in text


def test_rewritten_in_place(kept: Kept) -> None:
    """A file that is written over is seen to be another, too."""
    with (kept.path / "m.pem").open("r+b") as file:
        file.write(SECOND.key + SECOND.certificate)
        file.truncate()
    assert kept.shown() == SECOND.serial


@pytest.mark.parametrize("broken", [FIRST.key[:40], b"", b"nonsense", SECOND.certificate, SECOND.key])
def test_half_written(kept: Kept, broken: bytes) -> None:
    """While a file is of no use its old certificate is shown; that it is so is told once."""
    kept.put("other.pem", OTHER)
    kept.write("m.pem", broken)
    with logged() as texts:
        assert kept.shown() == FIRST.serial
        assert kept.shown("ghcr.m.example") == OTHER.serial
        kept.put("other.pem", OTHER)
        assert kept.shown() == FIRST.serial
    told = [text for text in texts if "m.pem: " in text and "other.pem" not in text]
    assert len(told) == 1
    assert not any(line.decode() in text for text in texts for line in FIRST.key.splitlines()[1:-1])
    kept.put("m.pem", SECOND)
    assert kept.shown() == SECOND.serial


def test_key_and_certificate_one_after_the_other(kept: Kept) -> None:
    """Between the renewal of a pair's two files its old certificate is shown."""
    (kept.path / "m.pem").unlink()
    kept.write("m.crt", FIRST.certificate)
    kept.write("m.key", FIRST.key)
    assert kept.shown() == FIRST.serial
    kept.write("m.crt", SECOND.certificate)
    assert kept.shown() == FIRST.serial
    kept.write("m.key", SECOND.key)
    assert kept.shown() == SECOND.serial


def test_more_and_less(kept: Kept) -> None:
    """A file that is new is taken, and the certificate of one that is gone is shown no more."""
    assert kept.shown("ghcr.m.example") == FIRST.serial
    kept.put("ghcr.pem", OTHER)
    assert kept.shown("ghcr.m.example") == OTHER.serial
    (kept.path / "ghcr.pem").unlink()
    assert kept.shown("ghcr.m.example") == FIRST.serial


def test_nothing_left(kept: Kept) -> None:
    """If all files are gone, the previous certificates stay in use, which is logged."""
    with logged() as texts:
        shutil.rmtree(kept.path)
        assert kept.shown() == FIRST.serial
        assert kept.shown() == FIRST.serial
    assert len([text for text in texts if "no certificate left" in text]) == 1


def test_folders(kept: Kept) -> None:
    """Folders are looked into, by their links as certbot has them; hidden ones and deeper ones are not."""
    archive = kept.path / ".archive"
    archive.mkdir()
    live = kept.path / "ghcr"
    live.mkdir()
    for name, data in (("fullchain", OTHER.certificate), ("privkey", OTHER.key)):
        (archive / f"{name}1.pem").write_bytes(data)
        (live / f"{name}.pem").symlink_to(f"../.archive/{name}1.pem")
    deeper = live / "deeper"
    deeper.mkdir()
    (deeper / "m.pem").write_bytes(SECOND.key + SECOND.certificate)
    assert kept.shown("ghcr.m.example") == OTHER.serial
    assert [each.path.parent.name for each in kept.directory.chains] == [kept.path.name, "ghcr"]
    renewed = issue("ghcr.m.example")
    for name, data in (("fullchain", renewed.certificate), ("privkey", renewed.key)):
        (archive / f"{name}2.pem").write_bytes(data)
        os.symlink(f"../.archive/{name}2.pem", live / "link")
        (live / "link").rename(live / f"{name}.pem")
    assert kept.shown("ghcr.m.example") == renewed.serial


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("readme.txt", FIRST.key + FIRST.certificate, "no certificate with its key found"),
        ("m.pem", FIRST.key[:40], "m.pem: ends in the middle of a PEM block"),
        ("m.crt", FIRST.certificate, "m.crt: holds a certificate without a matching key"),
    ],
)
def test_no_certificate(tmp_path: Path, name: str, data: bytes, told: str) -> None:
    """A directory without anything to show is refused in a line that says why."""
    kept = Kept(tmp_path)
    kept.write(name, data)
    with pytest.raises(NoUsableCertificate, match=told) as raised:
        kept.directory.reload_if_changed()
    assert str(raised.value).startswith(f"{tmp_path}: no certificate with its key found")
    assert "\n" not in str(raised.value)


def test_no_directory(tmp_path: Path) -> None:
    """One that is missing is refused as well."""
    with pytest.raises(NoUsableCertificate, match="missing: cannot be read: No such file or directory"):
        Kept(tmp_path / "missing").directory.reload_if_changed()


def test_its_end(tmp_path: Path) -> None:
    """A certificate that expires within seven days, or has expired, is logged once a day."""
    kept = Kept(tmp_path)
    kept.put("m.pem", issue("m.example", days=8))
    with logged() as texts:
        for hours in range(3 * 24):
            kept.shown(after=0 if hours == 0 else 3600)
    told = [text for text in texts if "the certificate for m.example expires at 2026-12-02T00:00Z" in text]
    assert len(told) == 2
    with logged() as texts:
        kept.shown(after=7 * 24 * 3600)
    assert any("the certificate for m.example expired at 2026-12-02T00:00Z" in text for text in texts)


OWN, EXACT, WILD = issue("m.example", "10.0.0.1"), issue("ghcr.m.example"), issue("*.m.example")
OLDER, NEWER = issue("twice.m.example", days=30), issue("twice.m.example", days=90)


def choice(directory: Path, domain: str, *issued: Issued) -> SniSelector:
    """Return a selector of these certificates in this order."""
    paths = []
    for number, each in enumerate(issued):
        paths.append(directory / f"{number}.pem")
        paths[-1].write_bytes(each.certificate + each.key)
    return SniSelector(read_certificate_folder(paths).chains, domain)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("m.example", OWN),
        ("ghcr.m.example", EXACT),
        ("GHCR.M.Example", EXACT),
        ("docker.m.example", WILD),
        ("twice.m.example", NEWER),
        ("a.b.m.example", OWN),
        ("other.example", OWN),
        ("localhost", OWN),
        (None, OWN),
    ],
)
def test_by_name(tmp_path: Path, name: str | None, expected: Issued) -> None:
    """The very name stands before the wildcard, the later end before the earlier, the domain's for others."""
    chosen = choice(tmp_path, "m.example", WILD, NEWER, EXACT, OWN, OLDER)
    assert shown(chosen.context, name) == [expected.serial]


@pytest.mark.parametrize(("domain", "expected"), [("x.m.example", WILD), ("localhost", EXACT)])
def test_no_name(tmp_path: Path, domain: str, expected: Issued) -> None:
    """Without a server name the domain's certificate is used, or the first one."""
    chosen = choice(tmp_path, domain, EXACT, WILD)
    assert shown(chosen.context, None) == [expected.serial]


ISSUED = issue("m.example", days=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A directory with a certificate."""
    (tmp_path / "m.pem").write_bytes(ISSUED.key + ISSUED.certificate)
    return tmp_path


def test_open(path: Path) -> None:
    """A directory is opened once, by name or because none is named; when its certificates end is known."""
    directories = CertificateDirectories(path, "m.example", Clock())
    assert directories.expiry_times() == {}
    assert directories.open(None) is directories.open(path)
    assert directories.expiry_times() == {str(path / "m.pem"): NOW.timestamp() + 86_400}


def test_preferred(path: Path) -> None:
    """Another domain's certificate is shown from now on to clients that ask for no name, open or not yet."""
    other = issue("other.example")
    (path / "other.pem").write_bytes(other.key + other.certificate)
    directories = CertificateDirectories(path, "m.example", Clock())
    directory = directories.open(None)
    assert shown(directory, None)[0] == ISSUED.serial
    directories.set_default_domain("other.example")
    assert shown(directory, None)[0] == other.serial
    assert shown(directory, "m.example")[0] == ISSUED.serial


def test_none(tmp_path: Path) -> None:
    """A missing setting and an empty directory are errors."""
    with pytest.raises(NoUsableCertificate, match="set 'certificates'"):
        CertificateDirectories(None, "m.example", Clock()).open(None)
    directories = CertificateDirectories(None, "m.example", Clock())
    with pytest.raises(NoUsableCertificate, match="no certificate with its key"):
        directories.open(tmp_path)
    assert directories.expiry_times() == {}


def test_filled(path: Path, tmp_path: Path) -> None:
    """A default directory that the mirror fills may be empty or missing; others may not."""
    empty = tmp_path / "empty"
    directories = CertificateDirectories(empty, "m.example", Clock(), filled=True)
    directory = directories.open(None)
    assert directories.expiry_times() == {}
    with pytest.raises(NoUsableCertificate):
        directories.open(tmp_path / "other")
    with pytest.raises(Error, match="no shared cipher"):
        shown(directory, "m.example")
    empty.mkdir()
    (path / "m.pem").rename(empty / "m.pem")
    assert shown(directory, "m.example") == [ISSUED.serial]
