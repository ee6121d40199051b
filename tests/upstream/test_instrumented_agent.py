"""An upstream's servers, measured."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry
from treq import content
from twisted.internet.task import Clock
from twisted.web.iweb import IAgent, IResponse
from zope.interface.verify import verifyObject

from dockmirror.metrics import Metrics
from dockmirror.upstream.instrumented_agent import InstrumentedAgent, parse_quota
from tests.fakes import Wire
from tests.scraped import scraped
from tests.stacks import Outcome

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nRateLimit-Limit: 100;w=21600\r\nRateLimit-Remaining: 7\r\n\r\n"
)


def test_a_response() -> None:
    """Its seconds, the bytes of its body, and what it tells of the quota are the upstream's."""
    clock, wire, metrics = Clock(), Wire(), Metrics(CollectorRegistry())
    allowed: list[tuple[int | None, int | None]] = []
    agent = InstrumentedAgent(wire.agent, "docker", metrics, clock, lambda *told: allowed.append(told))
    verifyObject(IAgent, agent)
    response = Outcome(agent.request(b"GET", b"http://r.example/"))
    clock.advance(3)
    wire.send(HEAD % 10 + b"12345")
    verifyObject(IResponse, response.get())
    body = Outcome(content(response.get()))
    wire.send(b"67890")
    assert body.get() == b"1234567890"
    seen = scraped(metrics.registry)
    assert seen["dockmirror_received_bytes_total", ("docker",)] == 10
    assert seen["dockmirror_upstream_seconds_sum", ("docker",)] == 3
    assert seen["dockmirror_upstream_ratelimit_limit", ("docker",)] == 100
    assert seen["dockmirror_upstream_ratelimit_remaining", ("docker",)] == 7
    assert allowed == [(100, 7)]


def test_a_failure() -> None:
    """Has no seconds: nothing answered."""
    wire, metrics = Wire(), Metrics(CollectorRegistry())
    outcome = Outcome(
        InstrumentedAgent(wire.agent, "a", metrics, Clock(), print).request(b"GET", b"http://r.example/")
    )
    wire.lose(ConnectionError())
    assert outcome.error
    assert scraped(metrics.registry)["dockmirror_upstream_seconds_count", ("a",)] == 0


@pytest.mark.parametrize(
    ("told", "number"),
    [
        ("100;w=21600", 100), ("0", 0), (" 5, 5;w=60", 5), ("", None), ("many", None), ("-1", None),
        ("1" * 13, None), ("\u0663", None),
    ],
)  # fmt: skip
def test_quotas(told: str, number: int | None) -> None:
    """The first number is the quota; what is none counts for nothing."""
    assert parse_quota(told) == number
