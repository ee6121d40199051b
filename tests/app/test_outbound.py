"""Connections to the servers of an upstream, by its settings."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.testing import MemoryReactorClock

from dockmirror.app.outbound import agent
from dockmirror.config.settings import UpstreamSettings
from tests.connections import FakeResolver

NAMES = {"r.example": ["10.1.2.3"], "auth.example": ["10.1.2.4"], "cdn.example": ["10.1.2.5"]}


def dialled(url: str, **settings: Any) -> list[tuple[str, int]]:
    """Return the addresses and ports that one request to *url* has dialled."""
    reactor = MemoryReactorClock()
    upstream = UpstreamSettings.model_validate({"url": "http://r.example:5000", **settings})
    asked = agent(upstream, FakeResolver(NAMES), {}, lambda *_: None, reactor).request(b"GET", url.encode())
    asked.addErrback(lambda _: None)
    reactor.advance(0)
    return [(host, port) for host, port, *_ in reactor.tcpClients]


@pytest.mark.parametrize(
    ("url", "settings"),
    [
        ("http://r.example:5000/", {}),
        ("http://auth.example:5001/", {"realms": ["http://auth.example:5001"]}),
        ("http://cdn.example:9000/", {"addresses": {"cdn.example": ["10.1.2.5"]}}),
        ("http://r.example:6379/", {"allow_networks": ["10.0.0.0/8"]}),
    ],
)
def test_the_operator_names_it(url: str, settings: dict[str, Any]) -> None:
    """A private address is reached where the settings name its host and port, or its network."""
    assert len(dialled(url, **settings)) == 1


@pytest.mark.parametrize(
    ("url", "settings"),
    [
        ("http://r.example:6379/", {}),
        ("http://r.example/", {}),
        ("http://r.example.:6379/", {"addresses": {"r.example": ["10.1.2.3"]}}),
        ("http://auth.example:6379/", {"realms": ["http://auth.example:5001"]}),
    ],
)
def test_another_port_of_the_same_host(url: str, settings: dict[str, Any]) -> None:
    """A redirect to the upstream's host reaches no other server there with a private address."""
    assert dialled(url, **settings) == []
