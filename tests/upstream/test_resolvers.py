"""Host name resolvers."""

# mypy: allow-untyped-decorators

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import pytest_twisted  # type: ignore[import-untyped, unused-ignore]
from hypothesis import given
from hypothesis import strategies as st
from treq import content
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IHostnameResolver, IHostResolution, IResolutionReceiver
from twisted.internet.testing import MemoryReactorClock
from twisted.web.client import Agent
from zope.interface import implementer
from zope.interface.verify import verifyObject

from dockmirror.upstream.addresses import AllowedAddresses
from dockmirror.upstream.checked_endpoint import (
    FAMILIES,
    AddressFamilyResolver,
    AddressRefused,
    FixedAddresses,
    canonical_host,
    threaded_resolver,
)
from dockmirror.upstream.upstream_endpoints import UpstreamEndpoints, make_tls_policy
from tests.connections import ALSO_PUBLIC, ALSO_PUBLIC6, PUBLIC, PUBLIC6, Connections, FakeResolver
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
    """A receiver that keeps the addresses, and the names of resolutions."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.addresses: list[Any] = []
        self.completed = 0

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        self.began.append(resolutionInProgress.name)

    def addressResolved(self, address: Any) -> None:
        assert self.began
        self.addresses.append(address)

    def resolutionComplete(self) -> None:
        self.completed += 1


def _resolved(resolver: IHostnameResolver, name: str, types: Sequence[Any] | None = None) -> list[str]:
    receiver = _Receiver()
    resolver.resolveHostName(receiver, name, 443, types)
    assert (len(receiver.began), receiver.completed) == (1, 1)
    assert all((address.type, address.port) == ("TCP", 443) for address in receiver.addresses)
    return [address.host for address in receiver.addresses]


BOTH = FakeResolver({"r.example": [PUBLIC, PUBLIC6, ALSO_PUBLIC, ALSO_PUBLIC6]})
FIXED = FixedAddresses(BOTH, {"Fixed.Example.": ["10.1.2.3", "FD00:0::1"], "none.example": []})


def test_wrappers_are_resolvers() -> None:
    verifyObject(IHostnameResolver, FIXED)
    verifyObject(IHostnameResolver, AddressFamilyResolver(BOTH, FAMILIES["4"]))
    verifyObject(IHostResolution, FIXED.resolveHostName(_Receiver(), "fixed.example"))


@pytest.mark.parametrize("name", ["fixed.example", "FIXED.example", "fixed.example."])
def test_a_fixed_name_has_the_configured_addresses(name: str) -> None:
    """In their order; the name may be written in any case."""
    assert _resolved(FIXED, name) == ["10.1.2.3", "fd00::1"]


def test_other_names_are_looked_up() -> None:
    """So are those below a fixed name."""
    assert _resolved(FIXED, "r.example") == [PUBLIC, PUBLIC6, ALSO_PUBLIC, ALSO_PUBLIC6]
    assert _resolved(FIXED, "below.fixed.example") == []


def test_a_fixed_name_may_have_no_address() -> None:
    assert _resolved(FIXED, "none.example") == []


def test_fixed_addresses_are_filtered_by_family() -> None:
    assert _resolved(FIXED, "fixed.example", [IPv6Address]) == ["fd00::1"]
    assert _resolved(FIXED, "fixed.example", [IPv4Address]) == ["10.1.2.3"]


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
    """The preferred family comes first."""
    assert _resolved(AddressFamilyResolver(BOTH, FAMILIES[versions]), "r.example") == addresses


@given(st.lists(st.ip_addresses().map(str)), st.sampled_from(sorted(FAMILIES)))
def test_addresses_of_a_family_keep_their_order(addresses: list[str], versions: str) -> None:
    resolver = AddressFamilyResolver(FakeResolver({"r.example": addresses}), FAMILIES[versions])
    kept = [address for address in addresses if "46"[":" in address] in versions]
    expected = sorted(kept, key=lambda address: versions.index("46"[":" in address]))
    assert _resolved(resolver, "r.example") == expected


def test_the_preferred_family_is_dialled_first() -> None:
    """Another one is dialled only if both are chosen."""
    for versions, dialled in (
        ("6 4", [PUBLIC6, PUBLIC]),
        ("4 6", [PUBLIC, PUBLIC6]),
        ("4", [PUBLIC, ALSO_PUBLIC]),
    ):
        here = Connections({}, resolver=AddressFamilyResolver(BOTH, FAMILIES[versions]))
        here.connect(b"http://r.example/")
        here.reactor.advance(0.3)
        assert here.dialled() == dialled


def test_a_fixed_address_may_be_private() -> None:
    allowed = AllowedAddresses([], hosts=FIXED.addresses)
    here = Connections({}, resolver=FIXED, addresses=allowed)
    here.connect(b"https://fixed.example/")
    assert here.dialled() == ["10.1.2.3"]


@given(st.from_regex(r"[A-Za-z.]*", fullmatch=True))
def test_names_are_compared_without_case_and_final_dot(name: str) -> None:
    assert canonical_host(name) == canonical_host(name.upper()) == canonical_host(canonical_host(name) + ".")
