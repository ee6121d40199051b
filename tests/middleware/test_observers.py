"""Observers of requests: their counts and records."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry
from twisted.internet.task import Clock
from zope.interface import implementer
from zope.interface.verify import verifyObject

from dockmirror.body.bodies import json_body
from dockmirror.interfaces import Answer, IBody, IRegistry, ITokenService, IUpstream
from dockmirror.metrics import Metrics
from dockmirror.middleware.observers import RequestObserver, TokenObserver, UpstreamObserver, label
from dockmirror.oci.errors import (
    ManifestUnknown,
    RegistryError,
    TimedOut,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    Unreachable,
)
from dockmirror.oci.header_fields import CacheResult, CacheStatus
from dockmirror.oci.request import RegistryRequest
from dockmirror.oci.token import Credentials, TokenRequest
from dockmirror.status import AddressStatus, UpstreamHealth
from tests.scraped import scraped
from tests.stacks import asked, bytes_of, now

MANIFEST, BLOB = "/v2/a/b/manifests/latest", f"/v2/a/b/blobs/sha256:{'0' * 64}"


@implementer(IUpstream)
class FixedRegistry:
    """Answers everything with two bytes and one cache result, or fails."""

    def __init__(self, outcome: CacheResult | RegistryError | None = None) -> None:
        self._outcome = outcome

    async def fetch(self, request: RegistryRequest) -> Answer:
        if isinstance(self._outcome, RegistryError):
            raise self._outcome
        return Answer(json_body(b"{}"), cache=CacheStatus(self._outcome) if self._outcome else None)

    async def token(self, request: TokenRequest) -> Answer:
        return await self.fetch(asked("/v2/"))


class Counters:
    def __init__(self) -> None:
        self.metrics = Metrics(CollectorRegistry())

    def observer(self, result: CacheResult | None = None) -> RequestObserver:
        return RequestObserver(FixedRegistry(result), "docker", self.metrics)

    def tokens(self, result: CacheResult) -> TokenObserver:
        return TokenObserver(FixedRegistry(result), "docker", self.metrics)

    def held_bytes(self) -> float:
        return scraped(self.metrics.registry)["dockmirror_cache_sent_bytes_total", ("docker",)]


@pytest.fixture
def counters() -> Counters:
    return Counters()


def test_cache_results_are_counted(counters: Counters) -> None:
    """Results count by upstream and endpoint; an answer that no cache had a part in does not."""
    for result in (CacheResult.HIT, CacheResult.HIT, CacheResult.JOINED, None, CacheResult.STORED):
        observer = counters.observer(result)
        verifyObject(IRegistry, observer)
        now(observer.fetch(asked(MANIFEST)))
    verifyObject(ITokenService, counters.tokens(CacheResult.BYPASS))
    now(counters.tokens(CacheResult.BYPASS).token(TokenRequest()))
    results = {
        key[1]: count
        for key, count in scraped(counters.metrics.registry).items()
        if key[0].endswith("results_total")
    }
    assert results == {
        ("manifest", "hit", "docker"): 2,
        ("manifest", "joined", "docker"): 1,
        ("manifest", "miss", "docker"): 1,
        ("token", "bypass", "docker"): 1,
    }


@pytest.mark.parametrize(
    ("result", "counted"),
    [(CacheResult.HIT, 2), (CacheResult.STALE, 2), (CacheResult.CONFIRMED, 2), (CacheResult.MISS, 0)],
)
def test_bytes_from_the_cache_are_counted(counters: Counters, result: CacheResult, counted: int) -> None:
    """Held bytes count when they are delivered; a body that is discarded does not."""
    observer = counters.observer(result)
    body = now(observer.fetch(asked(MANIFEST))).body
    verifyObject(IBody, body)
    body.discard()
    assert counters.held_bytes() == 0
    assert bytes_of(now(observer.fetch(asked(MANIFEST))).body) == b"{}"
    assert counters.held_bytes() == counted
    assert bytes_of(now(counters.tokens(result).token(TokenRequest())).body) == b"{}"
    assert counters.held_bytes() == 2 * counted


def test_labels_of_results() -> None:
    """Each result is counted under a label of its own, but that a miss is one whether it is stored or not."""
    labels = [label(result) for result in CacheResult]
    others = ["redirected", "miss", "miss", "joined", "confirmed", "stale", "bypass"]
    assert labels == ["hit", "stale_while_revalidate", *others]


class ObservedAddress:
    """An address of an upstream, and what its observer counts and records.

    :param error: with which the address answers every request.
    """

    def __init__(self, error: RegistryError | None = None) -> None:
        clock = Clock()
        clock.advance(7)
        self._metrics = Metrics(CollectorRegistry())
        self._health = UpstreamHealth(clock).of("https://a")
        self._error = error
        self._observer = UpstreamObserver(FixedRegistry(error), "docker", self._metrics, self._health)
        verifyObject(IUpstream, self._observer)

    def ask(self, request: RegistryRequest | TokenRequest) -> AddressStatus:
        if isinstance(request, TokenRequest):
            answering = self._observer.token(request)
        else:
            answering = self._observer.fetch(request)
        if self._error is None:
            now(answering)
        else:
            with pytest.raises(type(self._error)):
                now(answering)
        return self._health.address

    def failures(self, reason: str) -> float:
        return scraped(self._metrics.registry)["dockmirror_upstream_failures_total", (reason, "docker")]


@pytest.mark.parametrize("error", [None, ManifestUnknown(), Unauthorized()])
@pytest.mark.parametrize("request_", [asked(MANIFEST), TokenRequest()])
def test_an_answer_proves_health(
    request_: RegistryRequest | TokenRequest, error: RegistryError | None
) -> None:
    """An address that answers is healthy, even if it refuses."""
    assert ObservedAddress(error).ask(request_) == AddressStatus("https://a", answered=7.0)


@pytest.mark.parametrize("error", [TimedOut("it took too long"), TooManyRequests("come back later")])
@pytest.mark.parametrize("request_", [asked(MANIFEST), asked("/v2/"), TokenRequest()])
def test_a_failure_is_recorded_with_its_reason(
    request_: RegistryRequest | TokenRequest, error: RegistryError
) -> None:
    status = AddressStatus("https://a", failed=7.0, failure=str(error))
    assert ObservedAddress(error).ask(request_) == status


@pytest.mark.parametrize("error", [None, Unauthorized()])
def test_a_remembered_challenge_proves_nothing(error: RegistryError | None) -> None:
    """An anonymous ``/v2/`` may be answered from memory; one with credentials is asked upstream."""
    assert ObservedAddress(error).ask(asked("/v2/")) == AddressStatus("https://a")
    request = asked("/v2/", credentials=Credentials("Bearer x"))
    assert ObservedAddress(error).ask(request) == AddressStatus("https://a", answered=7.0)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Unreachable(), "unreachable"), (TimedOut(), "timed_out"), (Unavailable(), "useless"),
        (ManifestUnknown(), None),
    ],
)  # fmt: skip
def test_failures_are_counted_by_reason(error: RegistryError, reason: str | None) -> None:
    """Each failure is counted under its reason and raised; a refusal is not counted."""
    address = ObservedAddress(error)
    address.ask(asked(MANIFEST))
    address.ask(TokenRequest())
    for word in ("unreachable", "timed_out", "useless"):
        assert address.failures(word) == 2 * (word == reason)
