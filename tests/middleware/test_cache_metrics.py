"""Registries whose answers are counted."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from zope.interface import implementer
from zope.interface.verify import verifyObject

import dockmirror
from dockmirror.body.in_memory import json_body
from dockmirror.interfaces import Answer, IRegistry
from dockmirror.metrics import Metrics
from dockmirror.middleware.cache_metrics import CacheMetrics, ErrorMetrics, result
from dockmirror.oci.errors import ManifestUnknown, RegistryError, TimedOut, Unavailable, Unreachable
from dockmirror.oci.request import RegistryRequest, parse_target
from dockmirror.oci.token import TokenRequest
from tests.answering import now
from tests.scraped import scraped
from tests.stacks import bytes_of

MANIFEST = RegistryRequest(parse_target(b"/v2/a/manifests/1"))


@implementer(IRegistry)
class Saying:
    """Answers everything with a header, or fails."""

    def __init__(self, said: str | RegistryError) -> None:
        self._said = said

    async def fetch(self, request: RegistryRequest) -> Answer:
        """See ``IRegistry``."""
        if isinstance(self._said, RegistryError):
            raise self._said
        headers = (("Cache-Status", self._said),) if self._said else ()
        return Answer(json_body(b"{}"), headers=headers)

    async def token(self, request: TokenRequest) -> Answer:
        """See ``IRegistry``."""
        return await self.fetch(MANIFEST)


def test_results() -> None:
    """What an answer says of the cache is counted by upstream and endpoint; one that says nothing is not."""
    metrics = Metrics(CollectorRegistry())
    hits: list[bool] = []
    for said in ("dockmirror; hit", "dockmirror; hit", "dockmirror; fwd=miss; collapsed", ""):
        registry = CacheMetrics(Saying(said), "docker", metrics, hits.append)
        verifyObject(IRegistry, registry)
        now(registry.fetch(MANIFEST))
    now(CacheMetrics(Saying("dockmirror; fwd=miss"), "docker", metrics, hits.append).fetch(MANIFEST))
    now(CacheMetrics(Saying("dockmirror; fwd=bypass"), "docker", metrics, hits.append).token(TokenRequest()))
    counted = {key[1]: n for key, n in scraped(metrics.registry).items() if key[0].endswith("results_total")}
    assert counted == {
        ("manifest", "hit", "docker"): 2,
        ("manifest", "joined", "docker"): 1,
        ("manifest", "miss", "docker"): 1,
        ("token", "bypass", "docker"): 1,
    }
    assert hits == [True, True, True, False]


@pytest.mark.parametrize(
    ("said", "counted"),
    [("hit", 2), ("fwd=stale; detail=upstream", 2), ("fwd=stale; detail=confirmed", 2), ("fwd=miss", 0)],
)
def test_bytes_that_were_held(said: str, counted: int) -> None:
    """Count when they were delivered; what is discarded does not."""
    metrics = Metrics(CollectorRegistry())
    registry = CacheMetrics(Saying(f"dockmirror; {said}"), "docker", metrics)
    now(registry.fetch(MANIFEST)).body.discard()
    assert scraped(metrics.registry)["dockmirror_cache_sent_bytes_total", ("docker",)] == 0
    assert bytes_of(now(registry.fetch(MANIFEST)).body) == b"{}"
    assert scraped(metrics.registry)["dockmirror_cache_sent_bytes_total", ("docker",)] == counted


def test_every_word_of_the_cache_is_known() -> None:
    """Whatever the cache says of an answer is counted by a word of its own."""
    words = {
        node.value
        for path in (Path(dockmirror.__file__).parent / "pullthrough").glob("*.py")
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if node.value == "hit" or node.value.startswith("fwd=")
    }
    assert len(words) > 5
    assert "other" not in {result(f"dockmirror; {word}") for word in words}
    assert result("dockmirror; fwd=whatever") == "other"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Unreachable(), "unreachable"), (TimedOut(), "timed_out"), (Unavailable(), "useless"),
        (ManifestUnknown(), None),
    ],
)  # fmt: skip
def test_failures(error: RegistryError, reason: str | None) -> None:
    """An upstream's failures are counted by reason, and passed on; a refusal is none."""
    metrics = Metrics(CollectorRegistry())
    registry = ErrorMetrics(Saying(error), "docker", metrics)
    verifyObject(IRegistry, registry)
    with pytest.raises(type(error)):
        now(registry.fetch(MANIFEST))
    with pytest.raises(type(error)):
        now(registry.token(TokenRequest()))
    seen = scraped(metrics.registry)
    counted = {
        word: seen["dockmirror_upstream_failures_total", (word, "docker")]
        for word in ("unreachable", "timed_out", "useless")
    }
    assert counted == {word: 2 * (word == reason) for word in counted}
