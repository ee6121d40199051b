"""Files of the ACME client."""

from __future__ import annotations

import stat
from contextlib import suppress
from pathlib import Path

import pytest

from dockmirror.tls.acme_renewal import AcmeStore
from dockmirror.tls.certificate_files import read_certificate_folder
from tests.issued import NOW, issue

DAY = 86_400.0


@pytest.fixture
def kept(tmp_path: Path) -> AcmeStore:
    """In a directory that is not there yet."""
    return AcmeStore(tmp_path / "certificates")


def mode(path: Path) -> int:
    """Return the permissions of a file."""
    return stat.S_IMODE(path.stat().st_mode)


def test_a_certificate(kept: AcmeStore) -> None:
    """A certificate and its key replace the previous ones, and are readable only by the mirror."""
    for _ in range(2):
        issued = issue("m.example")
        kept.save_certificate("m.example", issued.key + issued.certificate)
        folder = read_certificate_folder(path for path in kept.folder.iterdir() if path.suffix == ".pem")
        assert [each.certificate.serial_number for each in folder.chains] == [issued.serial]
        assert folder.problems == ()
    assert (mode(kept.folder), mode(kept.folder / "m.example.pem")) == (0o700, 0o600)
    assert [path.name for path in kept.folder.iterdir()] == ["m.example.pem"]


def test_when_it_is_due(kept: AcmeStore) -> None:
    """When two thirds of its life are over: here of 900 days before ``NOW`` and 90 after it."""
    issued = issue("m.example", days=90)
    kept.save_certificate("m.example", issued.key + issued.certificate)
    assert kept.renewal_time("m.example") == NOW.timestamp() + (-900 + 990 * 2 / 3) * DAY


@pytest.mark.parametrize("pem", [b"", b"nonsense", issue("m.example").key, issue("m.example").key[:40]])
def test_what_is_no_certificate(kept: AcmeStore, pem: bytes) -> None:
    """A file without a certificate counts as none."""
    assert kept.renewal_time("m.example") is None
    kept.save_certificate("m.example", pem)
    assert kept.renewal_time("m.example") is None


def test_the_account(kept: AcmeStore) -> None:
    """The account key is created once, and is readable only by the mirror."""
    assert kept.account_key(lambda: b"first") == b"first"
    assert kept.account_key(lambda: b"second") == b"first"
    assert mode(kept.folder / "account") == 0o600
    assert (kept.folder / "account").suffix == ""


def test_proofs(kept: AcmeStore) -> None:
    """Proofs are found by their tokens while an authority may ask for them."""
    with kept.publish_proofs() as prove:
        prove("To-ken_1", "To-ken_1.thumbprint")
        prove("other", "other.thumbprint")
        assert kept.find_proof("To-ken_1") == b"To-ken_1.thumbprint"
        assert kept.find_proof("other") == b"other.thumbprint"
        assert kept.find_proof("unknown") is None
    assert kept.find_proof("To-ken_1") is None


@pytest.mark.parametrize(
    "token", ["", ".", "..", "../account", "%2e%2e", "a/b", "a\0", "a" * 257, "\N{SNOWMAN}"]
)
def test_no_token(kept: AcmeStore, token: str) -> None:
    """Leads to another file, or puts one there."""
    kept.account_key(lambda: b"secret")
    assert kept.find_proof(token) is None
    with kept.publish_proofs() as prove, pytest.raises(OSError, match="token"):
        prove(token, "x")


def test_proofs_of_one_that_was_killed(kept: AcmeStore) -> None:
    """Proofs of a killed mirror are removed when the next ones are published."""
    (kept.folder / "proofs").mkdir(parents=True)
    for name in ("old", ".half"):
        (kept.folder / "proofs" / name).touch()
    with kept.publish_proofs() as prove:
        prove("token", "x")
        assert [path.name for path in (kept.folder / "proofs").iterdir()] == ["token"]


def test_proofs_end_with_what_asked_for_them(kept: AcmeStore) -> None:
    """However it ends."""
    with suppress(KeyError), kept.publish_proofs() as prove:
        prove("token", "x")
        raise KeyError
    assert kept.find_proof("token") is None
