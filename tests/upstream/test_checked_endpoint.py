"""Name resolution, and connections to the allowed address of a host that answers first."""

# mypy: allow-untyped-decorators

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import ip_network
from typing import Any

import pytest
import pytest_twisted  # type: ignore[import-untyped, unused-ignore]
from hypothesis import given
from hypothesis import strategies as st
from treq import content
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.error import DNSLookupError
from twisted.internet.error import TimeoutError as ConnectTimedOut
from twisted.internet.interfaces import IHostnameResolver, IHostResolution, IResolutionReceiver
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.web.client import Agent
from zope.interface import implementer
from zope.interface.verify import verifyObject

from dockmirror.upstream.addresses import AllowedAddresses
from dockmirror.upstream.checked_endpoint import (
    ADDRESSES_RENEWED,
    ADDRESSES_TTL,
    FAMILIES,
    AddressCache,
    AddressFamilyResolver,
    AddressRefused,
    FixedAddresses,
    canonical_host,
    threaded_resolver,
)
from dockmirror.upstream.upstream_endpoints import UpstreamEndpoints, make_tls_policy
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
from tests.listening import Listening, Server, reactor


@pytest_twisted.ensureDeferred
async def test_the_systems_resolver_is_used(serve: Callable[..., Listening]) -> None:
    """It knows literal addresses, and that some names have none."""
    server = serve(Server)
    resolver = threaded_resolver(reactor, 1)
    endpoints = UpstreamEndpoints(
        reactor, resolver, make_tls_policy(), AllowedAddresses([], hosts=["127.0.0.1"])
    )
    agent = Agent.usingEndpointFactory(reactor, endpoints)
    response = await agent.request(b"GET", server.url("127.0.0.1", "http"))
    assert await content(response) == b"hello"
    with pytest.raises(AddressRefused, match=r"127.1 resolves to 127.0.0.1, which is loopback"):
        await agent.request(b"GET", server.url("127.1", "http"))
    for url in (b"http://nowhere.invalid/", b"http://a..example/"):
        with pytest.raises(DNSLookupError):
            await agent.request(b"GET", url)


def test_the_threads_live_with_the_reactor() -> None:
    memory = MemoryReactorClock()
    verifyObject(IHostnameResolver, threaded_resolver(memory))
    [(start, _, _)] = memory.whenRunningHooks
    [(stop, _, _)] = memory.triggers["during"]["shutdown"]
    start()
    stop()


@implementer(IResolutionReceiver)
class _Receiver:
    """A receiver that keeps its events and the addresses."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.addresses: list[Any] = []

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        self.events.append("began")

    def addressResolved(self, address: Any) -> None:
        self.events.append("resolved")
        self.addresses.append(address)

    def resolutionComplete(self) -> None:
        self.events.append("completed")


def _resolved(resolver: IHostnameResolver, name: str, types: Sequence[Any] | None = None) -> list[str]:
    receiver = _Receiver()
    resolver.resolveHostName(receiver, name, 443, types)
    assert receiver.events == ["began", *["resolved"] * len(receiver.addresses), "completed"]
    assert all((address.type, address.port) == ("TCP", 443) for address in receiver.addresses)
    return [address.host for address in receiver.addresses]


BOTH = FakeResolver({"r.example": [PUBLIC, PUBLIC6, ALSO_PUBLIC, ALSO_PUBLIC6]})
FIXED = FixedAddresses(BOTH, {"Fixed.Example.": ["10.1.2.3", "FD00:0::1"], "none.example": []})


@pytest.mark.parametrize(
    ("name", "types", "addresses"),
    [
        ("fixed.example", None, ["10.1.2.3", "fd00::1"]),
        ("FIXED.example", None, ["10.1.2.3", "fd00::1"]),
        ("fixed.example.", None, ["10.1.2.3", "fd00::1"]),
        ("fixed.example", [IPv6Address], ["fd00::1"]),
        ("fixed.example", [IPv4Address], ["10.1.2.3"]),
        ("none.example", None, []),
        ("r.example", None, [PUBLIC, PUBLIC6, ALSO_PUBLIC, ALSO_PUBLIC6]),
        ("below.fixed.example", None, []),
    ],
)
def test_a_fixed_name_has_the_configured_addresses(
    name: str, types: Sequence[Any] | None, addresses: list[str]
) -> None:
    """In their order, or none; other names are looked up."""
    verifyObject(IHostnameResolver, FIXED)
    verifyObject(IHostResolution, FIXED.resolveHostName(_Receiver(), "fixed.example"))
    assert _resolved(FIXED, name, types) == addresses


@pytest.mark.parametrize("address", ["fixed.example", "10.1.2.3/8", "10.1.2", "", "[::1]"])
def test_a_fixed_address_must_be_valid(address: str) -> None:
    with pytest.raises(ValueError, match="does not appear to be an IPv4 or IPv6 address"):
        FixedAddresses(BOTH, {"fixed.example": [address]})


@pytest.mark.parametrize(
    ("versions", "addresses"),
    [
        ("4", [PUBLIC, ALSO_PUBLIC]),
        ("6", [PUBLIC6, ALSO_PUBLIC6]),
        ("4 6", [PUBLIC, ALSO_PUBLIC, PUBLIC6, ALSO_PUBLIC6]),
        ("6 4", [PUBLIC6, ALSO_PUBLIC6, PUBLIC, ALSO_PUBLIC]),
    ],
)
def test_only_chosen_families_pass(versions: str, addresses: list[str]) -> None:
    """The preferred family comes first, and is dialled first."""
    resolver = AddressFamilyResolver(BOTH, FAMILIES[versions])
    verifyObject(IHostnameResolver, resolver)
    assert _resolved(resolver, "r.example") == addresses
    here = Connections({}, resolver=resolver)
    here.connect(b"http://r.example/")
    here.reactor.advance(0.3)
    assert here.dialled() == [addresses[0], addresses[1 if len(versions) == 1 else 2]]


@given(st.lists(st.ip_addresses().map(str)), st.sampled_from(sorted(FAMILIES)))
def test_addresses_of_a_family_keep_their_order(addresses: list[str], versions: str) -> None:
    resolver = AddressFamilyResolver(FakeResolver({"r.example": addresses}), FAMILIES[versions])
    kept = [address for address in addresses if "46"[":" in address] in versions]
    expected = sorted(kept, key=lambda address: versions.index("46"[":" in address]))
    assert _resolved(resolver, "r.example") == expected


@given(st.text("Aaz."))
def test_names_are_compared_without_case_and_final_dot(name: str) -> None:
    assert canonical_host(name) == canonical_host(name.upper()) == canonical_host(canonical_host(name) + ".")


def test_only_allowed_addresses_are_dialled() -> None:
    """If there is none the error is the reason of a refusal."""
    here = connections("10.1.2.3", PUBLIC, "::ffff:10.1.2.3")
    here.connect(b"https://r.example/")
    here.reactor.pump([0.5, 0.5])
    assert here.dialled() == [PUBLIC]
    here = connections("10.1.2.3", "::1")
    refused = failure_of(here.connect(b"https://r.example/"))
    assert isinstance(refused, AddressRefused)
    assert "r.example resolves to 10.1.2.3, which is private" in str(refused)
    assert here.dialled() == []


@pytest.mark.parametrize("literal", ["127.0.0.1", "[::1]", "[::ffff:169.254.169.254]"])
def test_a_literal_address_is_checked_like_a_resolved_one(literal: str) -> None:
    address = literal.strip("[]")
    here = Connections({address: [address]})
    assert isinstance(failure_of(here.connect(f"http://{literal}/".encode())), AddressRefused)


@pytest.mark.parametrize(
    ("addresses", "port", "is_allowed"),
    [
        (AllowedAddresses(["http://r.example:5000"]), 5000, True),
        (AllowedAddresses([], [ip_network("10.0.0.0/8")]), 5000, True),
        (AllowedAddresses([], hosts=["r.example"]), 5000, True),
        (AllowedAddresses(["http://r.example:5000"]), 6379, False),
    ],
)
def test_a_configured_address_is_dialled(addresses: AllowedAddresses, port: int, is_allowed: bool) -> None:
    """Another port of the configured host is refused: a redirect may lead there."""
    here = connections("10.1.2.3", addresses=addresses)
    connecting = here.connect(f"http://r.example:{port}/".encode())
    assert [client[:2] for client in here.reactor.tcpClients] == [("10.1.2.3", port)] * is_allowed
    assert is_allowed or isinstance(failure_of(connecting), AddressRefused)


def test_families_alternate() -> None:
    """IPv6 and IPv4 are dialled in turn, 0.3 s apart, until one answers; the others are cancelled."""
    here = connections(PUBLIC6, ALSO_PUBLIC6, PUBLIC, ALSO_PUBLIC)
    connecting = here.connect(b"http://r.example/")
    for count, seconds in enumerate((0, 0.3, 0.3), start=1):
        here.reactor.advance(seconds)
        assert here.dialled() == [PUBLIC6, PUBLIC, ALSO_PUBLIC6][:count]
    here.accept()
    assert isinstance(result_of(connecting), Protocol)
    here.reactor.advance(5)
    assert here.dialled() == [PUBLIC6, PUBLIC, ALSO_PUBLIC6]
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


@pytest.mark.parametrize("cancelled", [False, True])
def test_the_timeout_is_for_all_addresses_together(cancelled: bool) -> None:
    """It leaves nothing behind, as cancelling does."""
    here = connections(PUBLIC, ALSO_PUBLIC)
    connecting = here.connect(b"http://r.example/")
    here.reactor.advance(0.3)
    if cancelled:
        connecting.cancel()
    else:
        here.reactor.advance(9.8)
    assert isinstance(failure_of(connecting), ConnectTimedOut) is not cancelled
    assert len(here.reactor.connectors) == 2
    assert all(connector.stoppedConnecting for connector in here.reactor.connectors)
    assert here.reactor.getDelayedCalls() == []


@pytest.mark.parametrize("seconds", [0.1, 0.3])
@pytest.mark.parametrize("refused", [False, True])
def test_a_cancelled_connection_fails_as_cancelled(seconds: float, refused: bool) -> None:
    """However many addresses were dialled, and even if one of them has refused before."""
    here = connections(PUBLIC, ALSO_PUBLIC)
    connecting = here.connect(b"http://r.example/")
    here.reactor.advance(seconds)
    if refused:
        *_, factory, _timeout, _bind = here.reactor.tcpClients[-1]
        factory.clientConnectionFailed(here.reactor.connectors[-1], Failure(Refused()))
    connecting.cancel()
    assert isinstance(failure_of(connecting), CancelledError)


class LateResolver(FakeResolver):
    """Counts the look-ups, which end when the test says so."""

    def __init__(self, names: dict[str, list[str]]) -> None:
        self.waiting: list[Deferred[None]] = []
        super().__init__(names, self._wait)

    def _wait(self) -> Deferred[None]:
        self.waiting.append(Deferred())
        return self.waiting[-1]

    def answer(self) -> None:
        for each in self.waiting:
            each.callback(None)
        self.waiting.clear()


@implementer(IResolutionReceiver)
class Addresses(list[str]):
    """The addresses that a resolver found.

    :ivar is_complete: whether these are all.
    """

    is_complete = False

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """Take note of nothing."""

    def addressResolved(self, address: Any) -> None:
        self.append(address.host)

    def resolutionComplete(self) -> None:
        self.is_complete = True


class TestAddressCache:
    def start(self, names: dict[str, list[str]]) -> None:
        self.clock, self.resolver = Clock(), LateResolver(names)
        self.cache = AddressCache(self.resolver, self.clock)

    def look_up(self, name: str) -> Addresses:
        found = Addresses()
        self.cache.resolveHostName(found, name, 443, [IPv4Address])
        return found

    def test_a_name_in_use_is_known_at_once(self) -> None:
        """It is looked up again behind, and has the new addresses from then on."""
        names = {"a.example": [PUBLIC]}
        self.start(names)
        verifyObject(IHostnameResolver, self.cache)
        first = self.look_up("a.example")
        assert not first.is_complete
        self.resolver.answer()
        assert (first, first.is_complete) == ([PUBLIC], True)
        names["a.example"] = [ALSO_PUBLIC]
        for _ in range(3):
            self.clock.advance(ADDRESSES_RENEWED / 4)
            assert self.look_up("A.example.").is_complete
            assert self.resolver.waiting == []
        self.clock.advance(ADDRESSES_RENEWED / 4)
        for _ in range(2):
            assert self.look_up("a.example") == [PUBLIC]
        assert len(self.resolver.waiting) == 1
        self.resolver.answer()
        assert self.look_up("a.example") == [ALSO_PUBLIC]

    def test_addresses_have_an_end(self) -> None:
        """A name that was not used lately, or that is not found any more, is looked up."""
        self.start({"a.example": [PUBLIC]})
        self.look_up("a.example")
        self.resolver.answer()
        self.clock.advance(ADDRESSES_TTL)
        assert not self.look_up("a.example").is_complete

    def test_names_without_addresses_are_not_remembered(self) -> None:
        self.start({})
        for _ in range(2):
            found = self.look_up("b.example")
            assert len(self.resolver.waiting) == 1
            self.resolver.answer()
            assert (found, found.is_complete) == ([], True)
