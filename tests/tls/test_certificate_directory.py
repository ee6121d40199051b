"""Directories of certificates that are renewed."""

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


class Served:
    """A directory of certificates, and a clock that begins at ``NOW``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = Clock()
        self.clock.advance(NOW.timestamp())
        self.directory = CertificateDirectory(path, "m.example", self.clock)

    def write(self, name: str, *parts: bytes) -> None:
        """Replace a file atomically."""
        temporary = self.path / "written"
        temporary.write_bytes(b"".join(parts))
        temporary.chmod(0o600)
        temporary.rename(self.path / name)

    def put(self, name: str, issued: Issued) -> None:
        """Replace a file by a key and a certificate."""
        self.write(name, issued.key, issued.certificate)

    def shown(self, name: str | None = "m.example", after: float = 1) -> int:
        """Return the serial number of the certificate that the next client sees, so many seconds later."""
        self.clock.advance(after)
        return shown(self.directory, name)[0]


@pytest.fixture
def served(tmp_path: Path) -> Served:
    """Return a directory with a certificate in use."""
    served = Served(tmp_path)
    served.put("m.pem", FIRST)
    assert served.shown() == FIRST.serial
    return served


@pytest.mark.parametrize("in_place", [False, True])
def test_a_renewed_certificate_is_used(served: Served, in_place: bool) -> None:
    """By the next client, a second after the last check at the earliest."""
    verifyObject(IOpenSSLServerConnectionCreator, served.directory)
    if in_place:
        with (served.path / "m.pem").open("r+b") as file:
            file.write(SECOND.key + SECOND.certificate)
            file.truncate()
    else:
        served.put("m.pem", SECOND)
    assert served.shown(after=0.9) == FIRST.serial
    with logged() as texts:
        assert served.shown(after=0.2) == SECOND.serial
    (text,) = texts
    assert "m.pem: certificate for m.example, valid until 2027-01-23T00:00:00.000+00:00" in text


@pytest.mark.parametrize("broken", [FIRST.key[:40], b"", b"nonsense", SECOND.certificate, SECOND.key])
def test_a_broken_file_leaves_its_previous_certificate_in_use(served: Served, broken: bytes) -> None:
    """It is logged once."""
    served.put("other.pem", OTHER)
    served.write("m.pem", broken)
    with logged() as texts:
        assert served.shown() == FIRST.serial
        assert served.shown("ghcr.m.example") == OTHER.serial
        served.put("other.pem", OTHER)
        assert served.shown() == FIRST.serial
    assert len([text for text in texts if "m.pem: " in text and "other.pem" not in text]) == 1
    assert not any(line.decode() in text for text in texts for line in FIRST.key.splitlines()[1:-1])
    served.put("m.pem", SECOND)
    assert served.shown() == SECOND.serial


def test_a_half_renewed_pair_leaves_its_previous_certificate_in_use(served: Served) -> None:
    (served.path / "m.pem").unlink()
    served.write("m.crt", FIRST.certificate)
    served.write("m.key", FIRST.key)
    assert served.shown() == FIRST.serial
    served.write("m.crt", SECOND.certificate)
    assert served.shown() == FIRST.serial
    served.write("m.key", SECOND.key)
    assert served.shown() == SECOND.serial


def test_files_may_come_and_go(served: Served) -> None:
    """If all are gone, the previous certificates stay in use, which is logged."""
    assert served.shown("ghcr.m.example") == FIRST.serial
    served.put("ghcr.pem", OTHER)
    assert served.shown("ghcr.m.example") == OTHER.serial
    (served.path / "ghcr.pem").unlink()
    assert served.shown("ghcr.m.example") == FIRST.serial
    with logged() as texts:
        shutil.rmtree(served.path)
        assert served.shown() == FIRST.serial
        assert served.shown() == FIRST.serial
    assert len([text for text in texts if "no certificate left" in text]) == 1


def test_subdirectories_are_read(served: Served) -> None:
    """Through links, as certbot makes them; hidden and deeper ones are not."""
    archive = served.path / ".archive"
    archive.mkdir()
    live = served.path / "ghcr"
    live.mkdir()
    for name, data in (("fullchain", OTHER.certificate), ("privkey", OTHER.key)):
        (archive / f"{name}1.pem").write_bytes(data)
        (live / f"{name}.pem").symlink_to(f"../.archive/{name}1.pem")
    deeper = live / "deeper"
    deeper.mkdir()
    (deeper / "m.pem").write_bytes(SECOND.key + SECOND.certificate)
    assert served.shown("ghcr.m.example") == OTHER.serial
    assert [each.path.parent.name for each in served.directory.chains] == [served.path.name, "ghcr"]
    renewed = issue("ghcr.m.example")
    for name, data in (("fullchain", renewed.certificate), ("privkey", renewed.key)):
        (archive / f"{name}2.pem").write_bytes(data)
        os.symlink(f"../.archive/{name}2.pem", live / "link")
        (live / "link").rename(live / f"{name}.pem")
    assert served.shown("ghcr.m.example") == renewed.serial


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("readme.txt", FIRST.key + FIRST.certificate, "no certificate with its key found"),
        ("m.pem", FIRST.key[:40], "m.pem: ends in the middle of a PEM block"),
        ("m.crt", FIRST.certificate, "m.crt: holds a certificate without a matching key"),
    ],
)
def test_a_directory_without_a_certificate_is_refused(
    tmp_path: Path, name: str, data: bytes, reason: str
) -> None:
    """In a line that says why; so is one that is missing."""
    served = Served(tmp_path)
    served.write(name, data)
    with pytest.raises(NoUsableCertificate, match=reason) as raised:
        served.directory.reload_if_changed()
    assert str(raised.value).startswith(f"{tmp_path}: no certificate with its key found")
    assert "\n" not in str(raised.value)
    with pytest.raises(NoUsableCertificate, match="missing: cannot be read: No such file or directory"):
        Served(tmp_path / "missing").directory.reload_if_changed()


def test_an_expiring_certificate_is_logged_once_a_day(tmp_path: Path) -> None:
    """From seven days before its end."""
    served = Served(tmp_path)
    served.put("m.pem", issue("m.example", days=8))
    with logged() as texts:
        for hours in range(0, 3 * 24, 6):
            served.shown(after=0 if hours == 0 else 6 * 3600)
    expiring = "the certificate for m.example expires at 2026-12-02T00:00:00.000+00:00"
    assert len([text for text in texts if expiring in text]) == 2
    with logged() as texts:
        served.shown(after=7 * 24 * 3600)
    assert any(
        "the certificate for m.example expired at 2026-12-02T00:00:00.000+00:00" in text for text in texts
    )


OWN, EXACT, WILD = issue("m.example", "10.0.0.1"), issue("ghcr.m.example"), issue("*.m.example")
OLDER, NEWER = issue("twice.m.example", days=30), issue("twice.m.example", days=90)


@pytest.mark.parametrize(
    ("domain", "name", "expected"),
    [
        ("m.example", "m.example", OWN),
        ("m.example", "ghcr.m.example", EXACT),
        ("m.example", "GHCR.M.Example", EXACT),
        ("m.example", "docker.m.example", WILD),
        ("m.example", "twice.m.example", NEWER),
        ("m.example", "a.b.m.example", OWN),
        ("m.example", "other.example", OWN),
        ("m.example", "localhost", OWN),
        ("m.example", None, OWN),
        ("x.m.example", None, WILD),
        ("localhost", None, WILD),
    ],
)
def test_the_server_name_selects_the_certificate(
    tmp_path: Path, domain: str, name: str | None, expected: Issued
) -> None:
    """An exact match precedes a wildcard, the later end the earlier; the domain's is the default."""
    paths = []
    for number, each in enumerate([WILD, NEWER, EXACT, OWN, OLDER]):
        paths.append(tmp_path / f"{number}.pem")
        paths[-1].write_bytes(each.certificate + each.key)
    selector = SniSelector(read_certificate_folder(paths).chains, domain)
    assert shown(selector.context, name) == [expected.serial]


def test_a_directory_is_opened_once(served: Served) -> None:
    """By name or by default; its certificates' expiry is reported, and the default domain may change."""
    served.put("other.pem", OTHER)
    directories = CertificateDirectories(served.path, "m.example", served.clock)
    assert directories.expiry_times() == {}
    directory = directories.open(None)
    assert directories.open(served.path) is directory
    expiry = NOW.timestamp() + 60 * DAY
    assert directories.expiry_times() == {str(served.path / f"{name}.pem"): expiry for name in ("m", "other")}
    assert shown(directory, None)[0] == FIRST.serial
    directories.set_default_domain("ghcr.m.example")
    assert shown(directory, None)[0] == OTHER.serial
    assert shown(directory, "m.example")[0] == FIRST.serial


def test_only_a_directory_that_the_mirror_fills_may_be_empty(served: Served) -> None:
    """Or missing; other empty directories and a missing setting are errors."""
    empty = served.path / "empty"
    directories = CertificateDirectories(empty, "m.example", Clock(), filled=True)
    directory = directories.open(None)
    assert directories.expiry_times() == {}
    unfilled = CertificateDirectories(None, "m.example", Clock())
    for others, path in ((directories, served.path / "other"), (unfilled, empty)):
        with pytest.raises(NoUsableCertificate, match="no certificate with its key"):
            others.open(path)
    with pytest.raises(NoUsableCertificate, match="set 'certificates'"):
        unfilled.open(None)
    with pytest.raises(Error, match="no shared cipher"):
        shown(directory, "m.example")
    empty.mkdir()
    (served.path / "m.pem").rename(empty / "m.pem")
    assert shown(directory, "m.example") == [FIRST.serial]
