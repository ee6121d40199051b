"""Connections to the allowed address of a host that answers first."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.error import TimeoutError as ConnectTimedOut
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from dockmirror.upstream.addresses import AllowedAddresses
from dockmirror.upstream.checked_endpoint import AddressRefused
from tests.connections import (
    ALSO_PUBLIC,
    ALSO_PUBLIC6,
    PUBLIC,
    PUBLIC6,
    Connections,
    FakeResolver,
    connections,
    failure_of,
    result_of,
)


def test_no_address_is_dialled_if_all_are_refused() -> None:
    """The error is the reason of a refusal."""
    here = connections("10.1.2.3", "::1")
    refused = failure_of(here.connect(b"https://r.example/"))
    assert isinstance(refused, AddressRefused)
    assert "r.example resolves to 10.1.2.3, which is private" in str(refused)
    assert here.dialled() == []


def test_only_allowed_addresses_are_dialled() -> None:
    here = connections("10.1.2.3", PUBLIC, "::ffff:10.1.2.3")
    here.connect(b"https://r.example/")
    here.reactor.pump([0.5, 0.5])
    assert here.dialled() == [PUBLIC]


@pytest.mark.parametrize("literal", ["127.0.0.1", "[::1]", "[::ffff:169.254.169.254]"])
def test_a_literal_address_is_checked_like_a_resolved_one(literal: str) -> None:
    address = literal.strip("[]")
    here = Connections({address: [address]})
    assert isinstance(failure_of(here.connect(f"http://{literal}/".encode())), AddressRefused)


@pytest.mark.parametrize(
    "addresses",
    [AllowedAddresses(["http://r.example:5000"]), AllowedAddresses([], [ip_network("10.0.0.0/8")])],
)
def test_a_configured_address_is_dialled(addresses: AllowedAddresses) -> None:
    here = connections("10.1.2.3", addresses=addresses)
    here.connect(b"http://r.example:5000/")
    assert here.dialled() == ["10.1.2.3"]
    assert here.reactor.tcpClients[0][1] == 5000


def test_another_port_of_the_configured_host_is_refused() -> None:
    """A redirect may lead there."""
    here = connections("10.1.2.3", addresses=AllowedAddresses(["http://r.example:5000"]))
    refused = failure_of(here.connect(b"http://r.example:6379/"))
    assert isinstance(refused, AddressRefused)
    assert here.dialled() == []


def test_families_alternate() -> None:
    """IPv6 and IPv4 are dialled in turn, 0.3 s apart, until one answers."""
    here = connections(PUBLIC6, ALSO_PUBLIC6, PUBLIC, ALSO_PUBLIC)
    here.connect(b"http://r.example/")
    assert here.dialled() == [PUBLIC6]
    here.reactor.advance(0.3)
    assert here.dialled() == [PUBLIC6, PUBLIC]
    here.reactor.pump([0.3, 0.3])
    assert here.dialled() == [PUBLIC6, PUBLIC, ALSO_PUBLIC6, ALSO_PUBLIC]


def test_the_first_address_that_answers_is_used() -> None:
    """The other attempts are cancelled."""
    here = connections(PUBLIC, ALSO_PUBLIC, PUBLIC6)
    connecting = here.connect(b"http://r.example/")
    here.reactor.advance(0.3)
    here.accept()
    assert isinstance(result_of(connecting), Protocol)
    here.reactor.advance(5)
    assert here.dialled() == [PUBLIC, PUBLIC6]
    assert here.reactor.connectors[0].stoppedConnecting


def test_a_connection_error_is_raised_if_no_address_answers() -> None:
    here = connections(PUBLIC, ALSO_PUBLIC)
    connecting = here.connect(b"http://r.example/")
    here.reactor.advance(0.3)
    for (*_, factory, _timeout, _bind), connector in zip(
        here.reactor.tcpClients, here.reactor.connectors, strict=True
    ):
        factory.clientConnectionFailed(connector, Failure(Refused()))
    assert isinstance(failure_of(connecting), Refused)


@pytest.mark.parametrize("name", ["unknown.example", "a..example", "a" * 64 + ".example"])
def test_a_name_without_an_address_is_a_failed_lookup(name: str) -> None:
    """So is an invalid name."""
    assert isinstance(failure_of(connections(PUBLIC).connect(f"http://{name}/".encode())), DNSLookupError)


def test_the_timeout_includes_the_resolution() -> None:
    """A late result is ignored."""
    answer: Deferred[None] = Deferred()
    here = connections(
        PUBLIC, resolver=FakeResolver({"r.example": [PUBLIC]}, lambda: answer), connect_timeout=3
    )
    connecting = here.connect(b"http://r.example/")
    here.reactor.advance(3)
    late = failure_of(connecting)
    assert isinstance(late, ConnectTimedOut)
    assert "connecting to r.example took more than 3 s" in str(late)
    answer.callback(None)
    here.reactor.advance(1)
    assert here.dialled() == []


def test_the_timeout_is_for_all_addresses_together() -> None:
    here = connections(PUBLIC, ALSO_PUBLIC)
    connecting = here.connect(b"http://r.example/")
    here.reactor.pump([0.3, 9.8])
    assert isinstance(failure_of(connecting), ConnectTimedOut)
    assert all(connector.stoppedConnecting for connector in here.reactor.connectors)
    assert here.reactor.getDelayedCalls() == []


def test_cancelling_leaves_nothing_behind() -> None:
    here = connections(PUBLIC, ALSO_PUBLIC)
    connecting = here.connect(b"http://r.example/")
    connecting.cancel()
    assert not isinstance(failure_of(connecting), ConnectError)
    assert here.reactor.connectors[0].stoppedConnecting
    assert here.reactor.getDelayedCalls() == []
