"""Certificates from an ACME authority: their files, and their renewal."""

from __future__ import annotations

import fcntl
import os
import resource
import stat
from contextlib import suppress
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from dockmirror.tls.acme_renewal import (
    CHECK_PERIOD,
    AcmeStore,
    AuthorityUnavailable,
    CertificateRenewal,
    NameRefused,
)
from dockmirror.tls.certificate_files import read_certificate_folder
from tests.issued import NOW, issue
from tests.stacks import logged

DAY = 86_400.0


@pytest.fixture
def store(tmp_path: Path) -> AcmeStore:
    """Return a store in a directory that does not exist yet."""
    return AcmeStore(tmp_path / "certificates")


def is_locked(directory: Path) -> bool:
    """Return whether somebody has locked a directory."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def mode(path: Path) -> int:
    """Return the permissions of a file."""
    return stat.S_IMODE(path.stat().st_mode)


def test_a_certificate_replaces_the_previous_one(store: AcmeStore) -> None:
    """It is readable only by the mirror."""
    for _ in range(2):
        issued = issue("m.example")
        store.save_certificate("m.example", issued.key + issued.certificate)
        folder = read_certificate_folder(path for path in store.folder.iterdir() if path.suffix == ".pem")
        assert [each.certificate.serial_number for each in folder.chains] == [issued.serial]
        assert folder.problems == ()
    assert (mode(store.folder), mode(store.folder / "m.example.pem")) == (0o700, 0o600)
    assert [path.name for path in store.folder.iterdir()] == ["m.example.pem"]


def test_a_certificate_is_renewed_after_two_thirds_of_its_life(store: AcmeStore) -> None:
    """Here of 900 days before ``NOW`` and 90 after it."""
    issued = issue("m.example", days=90)
    store.save_certificate("m.example", issued.key + issued.certificate)
    assert store.renewal_time("m.example") == NOW.timestamp() + (-900 + 990 * 2 / 3) * DAY


@pytest.mark.parametrize("pem", [b"", b"nonsense", issue("m.example").key, issue("m.example").key[:40]])
def test_a_file_without_a_certificate_counts_as_none(store: AcmeStore, pem: bytes) -> None:
    assert store.renewal_time("m.example") is None
    store.folder.mkdir(parents=True)
    store.certificate_path("m.example").write_bytes(pem)
    assert store.renewal_time("m.example") is None


@pytest.mark.parametrize(
    "sent", [b"", b"<html>log in</html>", issue("m.example").certificate, issue("m.example").certificate[:99]]
)
def test_only_a_certificate_for_its_key_replaces_the_previous_one(store: AcmeStore, sent: bytes) -> None:
    previous = issue("m.example")
    store.save_certificate("m.example", previous.key + previous.certificate)
    with pytest.raises(NameRefused, match="the authority sent no certificate for the mirror's key"):
        store.save_certificate("m.example", issue("m.example").key + sent)
    assert store.certificate_path("m.example").read_bytes() == previous.key + previous.certificate


def test_the_account_key_is_created_once(store: AcmeStore) -> None:
    """It is readable only by the mirror."""
    assert store.account_key(lambda: b"first") == b"first"
    assert store.account_key(lambda: b"second") == b"first"
    assert mode(store.folder / "account") == 0o600
    assert (store.folder / "account").suffix == ""


def test_proofs_are_found_by_their_tokens(store: AcmeStore) -> None:
    """While an authority may ask for them, however that ends; those of a killed mirror are removed."""
    (store.folder / "proofs").mkdir(parents=True)
    for name in ("old", ".half"):
        (store.folder / "proofs" / name).touch()
    with suppress(KeyError), store.publish_proofs() as prove:
        prove("To-ken_1", "To-ken_1.thumbprint")
        prove("other", "other.thumbprint")
        assert {path.name for path in (store.folder / "proofs").iterdir()} == {"To-ken_1", "other"}
        assert store.find_proof("To-ken_1") == b"To-ken_1.thumbprint"
        assert store.find_proof("other") == b"other.thumbprint"
        assert store.find_proof("unknown") is None
        raise KeyError
    assert store.find_proof("To-ken_1") is None


def test_no_proof_is_published_on_a_disk_without_room_for_the_certificate(store: AcmeStore) -> None:
    """The authority counts those that it issues, and the mirror could not keep it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"), store.publish_proofs():
            pytest.fail("the authority is asked")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with store.publish_proofs():
        assert [path.name for path in store.folder.iterdir()] == []


def test_two_versions_of_a_mirror_publish_proofs_one_after_the_other(store: AcmeStore) -> None:
    """While one is replaced by the other, both may want a certificate."""
    with store.publish_proofs():
        assert is_locked(store.folder)
    assert not is_locked(store.folder)


@pytest.mark.parametrize(
    "token", ["", ".", "..", "../account", "%2e%2e", "a/b", "a\0", "a" * 257, "\N{SNOWMAN}"]
)
def test_an_invalid_token_leads_to_no_file(store: AcmeStore, token: str) -> None:
    store.account_key(lambda: b"secret")
    assert store.find_proof(token) is None
    with store.publish_proofs() as prove, pytest.raises(OSError, match="token"):
        prove(token, "x")


PAUSES = (30.0, 240.0, 1920.0, 15_360.0, 21_600.0)
LIFE = 60 * DAY
BOTH = ["m.example", "docker.m.example"]


class Renewal:
    """A renewal of certificates for two names, neither of which has one, and an authority.

    :ivar due: the times for renewal, by name.
    :ivar failures: the authority's failures, by name.
    :ivar delay: if set, the authority answers when it fires.
    :ivar life: seconds until a new certificate is due.
    """

    def __init__(self) -> None:
        self.names = BOTH
        self.clock = Clock()
        self.clock.advance(1_000_000_000)
        self.due: dict[str, float] = {}
        self.failures: dict[str, Exception] = {}
        self.delay: Deferred[None] | None = None
        self.life = LIFE
        self._requests: list[str] = []
        self.task = CertificateRenewal(lambda: self.names, self.due.get, self._issue, self.clock)

    async def _issue(self, name: str) -> None:
        self._requests.append(name)
        if self.delay is not None:
            await self.delay
        if name in self.failures:
            raise self.failures[name]
        self.due[name] = self.clock.seconds() + self.life

    def start(self) -> tuple[list[str], str]:
        """Start the task; return the requested names and the log."""
        with logged() as texts:
            self.task.startService()
        return self.requests_within(), "\n".join(texts)

    def requests_within(self, *steps: float) -> list[str]:
        """Return the names that are requested while the time passes in these steps."""
        for step in steps:
            self.clock.advance(step)
        requests, self._requests = self._requests, []
        return requests


@pytest.fixture
def renewal() -> Renewal:
    return Renewal()


def test_missing_certificates_are_requested_at_once(renewal: Renewal) -> None:
    """In the order of the names, which may change with the settings; missing ones are logged."""
    requests, log = renewal.start()
    assert requests == BOTH
    assert "no certificate yet for m.example, docker.m.example: https to them fails" in log
    assert "new certificate for docker.m.example" in log
    renewal.names = ["m.example", "lan.m.example"]
    assert renewal.requests_within(CHECK_PERIOD) == ["lan.m.example"]


def test_a_certificate_is_not_requested_before_it_is_due(renewal: Renewal) -> None:
    """Not even after a restart."""
    now = renewal.clock.seconds()
    renewal.due.update({"m.example": now + 2 * DAY, "docker.m.example": now + DAY})
    assert renewal.start() == ([], "")
    assert renewal.requests_within(DAY - 60) == []
    assert renewal.requests_within(60) == ["docker.m.example"]
    assert renewal.requests_within(DAY) == ["m.example"]
    assert renewal.requests_within(LIFE - 2 * DAY) == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [(NameRefused("it is not yours"), "it is not yours"), (KeyError("newNonce"), "KeyError")],
)
def test_a_refused_name_is_retried_after_growing_pauses(
    renewal: Renewal, error: Exception, reason: str
) -> None:
    """It does not delay others; an unexpected exception counts alike, and success resets the pauses."""
    renewal.failures["m.example"] = error
    requests, log = renewal.start()
    assert requests == BOTH
    assert f"no certificate for m.example; retrying in 30 s: {reason}" in log
    for pause in (*PAUSES, PAUSES[-1]):
        assert renewal.requests_within(pause - CHECK_PERIOD) == []
        assert renewal.requests_within(CHECK_PERIOD) == ["m.example"]
    renewal.failures.clear()
    assert renewal.requests_within(PAUSES[-1]) == ["m.example"]
    assert renewal.requests_within(DAY) == []
    renewal.failures["m.example"] = error
    renewal.due.pop("m.example")
    assert renewal.requests_within(CHECK_PERIOD) == ["m.example"]
    assert renewal.requests_within(PAUSES[0]) == ["m.example"]


def test_a_new_certificate_that_is_due_at_once_is_replaced_after_growing_pauses(renewal: Renewal) -> None:
    """As for a machine whose clock is far ahead: authorities limit the certificates for a name."""
    renewal.life = 0
    requests, log = renewal.start()
    assert requests == BOTH
    assert (
        "the new certificate for m.example is due for renewal; retrying in 30 s: is the clock right?" in log
    )
    for pause in PAUSES:
        assert renewal.requests_within(pause - CHECK_PERIOD) == []
        assert renewal.requests_within(CHECK_PERIOD) == BOTH
    renewal.life = LIFE
    assert renewal.requests_within(PAUSES[-1]) == BOTH
    assert renewal.requests_within(DAY) == []


def test_an_authority_that_is_down_is_asked_for_one_name(renewal: Renewal) -> None:
    """After growing pauses; a refusal shows that it is up, which resets them."""
    down = AuthorityUnavailable("connection refused")
    message = "the certificate authority is unavailable; retrying in 30 s: connection refused"
    renewal.failures.update(dict.fromkeys(BOTH, down))
    requests, log = renewal.start()
    assert requests == ["m.example"]
    assert message in log
    assert renewal.requests_within(PAUSES[0]) == ["m.example"]
    assert renewal.requests_within(PAUSES[1] - CHECK_PERIOD) == []
    renewal.failures["m.example"] = NameRefused("no")
    with logged() as texts:
        assert renewal.requests_within(CHECK_PERIOD) == BOTH
    assert any(message in text for text in texts)
    renewal.failures.clear()
    assert renewal.requests_within(PAUSES[0]) == BOTH


def test_one_certificate_is_requested_at_a_time(renewal: Renewal) -> None:
    """However long it takes; the end of the mirror waits for none."""
    renewal.delay = Deferred()
    assert renewal.start()[0] == ["m.example"]
    assert renewal.requests_within(*[CHECK_PERIOD] * 10, DAY) == []
    renewal.task.stopService()
    assert renewal.requests_within(*[CHECK_PERIOD] * 10, DAY) == []
