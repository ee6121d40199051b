"""Challenge proofs that mirrors share by their bucket."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.store import ObjectStore
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from dockmirror.app.acme import (
    FIND_TIMEOUT,
    LEFT_BEHIND,
    LIST_PERIOD,
    ProofFinder,
    ProofPublisher,
    make_certificate_renewal,
    missing_certificates,
)
from dockmirror.app.naming import certificate_names
from dockmirror.config.load import load
from dockmirror.config.settings import ConfigurationError
from dockmirror.store import layout
from dockmirror.tls.acme_renewal import AcmeStore, CertificateRenewal

from ..answering import now
from ..issued import issue
from ..store.bucket.machines import BucketThreads, bucket
from ..store.threads import HeldThreads
from .test_fleet_bucket import Address


class Other:
    """A mirror that an authority asks for the proof of another one."""

    def __init__(self, store: ObjectStore) -> None:
        self.clock = Clock()
        self.threads = BucketThreads()
        self.bucket = bucket(self.clock, store, self.threads)
        self.finder = ProofFinder(self.bucket, self.clock)

    def ask(self, token: str) -> Deferred[bytes | None]:
        return Deferred.fromCoroutine(self.finder.find(token))


@pytest.fixture
def address() -> Address:
    return Address()


@pytest.fixture
def publisher(tmp_path: Path, address: Address) -> ProofPublisher:
    return ProofPublisher(AcmeStore(tmp_path), address, time.time)  # type: ignore[arg-type]


def test_another_mirror_has_a_proof_as_long_as_it_is_published(
    tmp_path: Path, address: Address, publisher: ProofPublisher
) -> None:
    """At once, even if it has just been asked for a token that nobody had."""
    other = Other(address.store)
    assert now(other.ask("token")) is None
    with publisher.publish_proofs() as prove:
        prove("token", "token.thumbprint")
        assert AcmeStore(tmp_path).find_proof("token") == b"token.thumbprint"
        asked = other.ask("token")
        other.clock.advance(LIST_PERIOD)
        assert now(asked) == b"token.thumbprint"
    assert AcmeStore(tmp_path).find_proof("token") is None
    asked = other.ask("token")
    other.clock.advance(LIST_PERIOD)
    assert now(asked) is None


def test_many_requests_cost_one_listing_in_a_second(address: Address) -> None:
    """A request that comes during a listing waits for the next one."""
    other = Other(address.store)
    asked = [other.ask("a")]
    for _ in range(3):
        asked += [other.ask(str(number)) for number in range(100)]
        other.clock.advance(LIST_PERIOD)
    assert [now(each) for each in asked] == [None] * len(asked)
    assert other.bucket.requests == {"list": 4}


def test_what_can_be_no_token_costs_nothing(address: Address) -> None:
    other = Other(address.store)
    assert [now(other.ask(token)) for token in ("../account", "", "b" * 5000, "a b")] == [None] * 4
    assert other.bucket.requests == {}


def test_a_bucket_that_hangs_holds_no_request_for_long(address: Address) -> None:
    clock = Clock()
    finder = ProofFinder(bucket(clock, address.store, HeldThreads()), clock)
    asked = Deferred.fromCoroutine(finder.find("token"))
    clock.advance(FIND_TIMEOUT)
    assert now(asked) is None


def test_a_bucket_that_fails_has_no_proof(address: Address) -> None:
    other = Other(address.store)
    other.threads.down = True
    assert now(other.ask("token")) is None


def test_a_proof_that_the_bucket_does_not_take_is_not_asked_for(
    tmp_path: Path, address: Address, publisher: ProofPublisher
) -> None:
    """The error names the bucket, and no signed address."""
    address.is_down = True
    with (
        pytest.raises(OSError, match=r"^s3://mirrors does not take the proof: no route to http://h/x$"),
        publisher.publish_proofs() as prove,
    ):
        prove("token", "token.thumbprint")
    assert AcmeStore(tmp_path).find_proof("token") is None


@pytest.mark.parametrize("age", [60.0, LEFT_BEHIND + 60])
def test_what_a_killed_mirror_left_behind_is_removed(tmp_path: Path, address: Address, age: float) -> None:
    """A proof stays while an authority may ask another mirror for it."""
    left = str(layout.acme_proof("left"))
    obstore.put(address.store, left, b"proof")
    publisher = ProofPublisher(AcmeStore(tmp_path), address, lambda: time.time() + age)  # type: ignore[arg-type]
    with publisher.publish_proofs() as prove:
        prove("mine", "mine.thumbprint")
    kept = [each["path"] for chunk in obstore.list(address.store) for each in chunk]
    assert kept == ([left] if age < LEFT_BEHIND else [])


ACME = {"domain": "m.example", "acme": "a@m.example"}


def test_missing_certificates_are_those_not_issued_yet(tmp_path: Path) -> None:
    certificates = {"certificates": str(tmp_path)}
    assert missing_certificates(load({"domain": "m.example", **certificates}, {})) == ()
    settings = load({**ACME, **certificates}, {})
    paths = [tmp_path / f"acme/{name}.pem" for name in certificate_names(settings)]
    assert missing_certificates(settings) == paths
    issued = issue("m.example")
    AcmeStore(tmp_path).save_certificate("m.example", issued.key + issued.certificate)
    assert missing_certificates(settings) == paths[1:]


def make_renewal(**settings: Any) -> CertificateRenewal:
    loaded = load(settings, {})
    service = make_certificate_renewal(loaded, lambda: loaded, Clock())
    assert isinstance(service, CertificateRenewal)
    return service


def test_certificate_renewal_needs_a_public_domain_and_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    assert make_renewal(**ACME)
    with pytest.raises(ConfigurationError, match="acme: needs a public 'domain'"):
        make_renewal(acme="a@m.example")
    monkeypatch.setitem(sys.modules, "dockmirror.tls.acme_client", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'dockmirror\[acme\]'"):
        make_renewal(**ACME)
