"""Servers that cannot be connected to, each left alone by itself."""

# mypy: allow-untyped-calls

from __future__ import annotations

import pytest
from twisted.internet.error import ConnectBindError, ConnectError, DNSLookupError, SSLError
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.error import TimeoutError as ConnectTimedOut
from twisted.internet.task import Clock
from twisted.web.iweb import IAgent
from zope.interface.verify import verifyObject

from dockmirror.upstream.checked_endpoint import AddressRefused
from dockmirror.upstream.host_circuit_breaker import FIRST, LONGEST, HostCircuitBreaker
from tests.fakes import DEAD, Reply, World
from tests.stacks import Outcome

REGISTRY, TOKENS = "registry.example", "auth.example"
DOWN = [Refused(), SSLError(), ConnectTimedOut(), DNSLookupError(), ConnectError()]


class Asker:
    """Two servers, which say yes until told otherwise."""

    def __init__(self) -> None:
        self.clock, self.world = Clock(), World({REGISTRY: _yes, TOKENS: _yes})
        self.agent = HostCircuitBreaker(self.world.agent, self.clock)

    def ask(self, host: str) -> BaseException | int:
        """The status, or how it failed."""
        outcome = Outcome(self.agent.request(b"GET", f"https://{host}/x".encode()))
        self.world.agent.flush()
        return outcome.error if hasattr(outcome[0], "value") else int(outcome.get().code)


def _yes(_: object) -> Reply:
    return Reply(200)


def test_it_is_an_agent() -> None:
    """As Twisted's are."""
    assert verifyObject(IAgent, Asker().agent)


@pytest.mark.parametrize("error", DOWN, ids=lambda error: type(error).__name__)
def test_a_server_that_is_down_rests_alone(error: Exception) -> None:
    """It is not connected to meanwhile, and others are; then it may answer."""
    asker = Asker()
    asker.world.agent.failing[TOKENS] = error
    assert asker.ask(TOKENS) is error
    del asker.world.agent.failing[TOKENS]
    assert asker.ask(TOKENS) is error
    assert asker.ask(REGISTRY) == 200
    asker.clock.advance(FIRST)
    assert asker.ask(TOKENS) == 200


def test_each_failure_doubles_the_rest() -> None:
    """Up to half a minute; an answer begins anew."""
    asker, lengths = Asker(), []
    for _ in range(7):
        asker.world.agent.failing[TOKENS] = Refused()
        asker.ask(TOKENS)
        asker.world.agent.failing[TOKENS] = AddressRefused("it was asked")
        start = asker.clock.seconds()
        while isinstance(asker.ask(TOKENS), Refused):
            asker.clock.advance(0.5)
        lengths.append(asker.clock.seconds() - start)
    assert lengths == [FIRST, 2, 4, 8, 16, LONGEST, LONGEST]
    asker.world.agent.failing.clear()
    assert asker.ask(TOKENS) == 200
    asker.world.agent.failing[TOKENS] = Refused()
    asker.ask(TOKENS)
    asker.world.agent.failing.clear()
    asker.clock.advance(FIRST)
    assert asker.ask(TOKENS) == 200


@pytest.mark.parametrize("error", [ConnectBindError(24, "too many files"), AddressRefused("private")])
def test_what_is_ours_is_not_the_servers(error: Exception) -> None:
    """A lack of descriptors, or an address that is not allowed."""
    asker = Asker()
    asker.world.agent.failing[TOKENS] = error
    assert asker.ask(TOKENS) is error
    del asker.world.agent.failing[TOKENS]
    assert asker.ask(TOKENS) == 200


def test_who_was_connected_to_does_not_rest() -> None:
    """A connection that is lost is no server that is down."""
    asker = Asker()
    asker.world.servers[TOKENS] = lambda _: DEAD
    assert isinstance(asker.ask(TOKENS), Exception)
    asker.world.servers[TOKENS] = _yes
    assert asker.ask(TOKENS) == 200


def test_a_clock_that_is_set_back_prolongs_nothing() -> None:
    """A rest that begins in a time to come is over."""
    asker = Asker()
    asker.clock.advance(1000)
    asker.world.agent.failing[TOKENS] = Refused()
    asker.ask(TOKENS)
    del asker.world.agent.failing[TOKENS]
    asker.clock.rightNow -= 500
    assert asker.ask(TOKENS) == 200
