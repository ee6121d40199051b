"""Names looked up."""

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
from dockmirror.upstream.checked_endpoint import AddressRefused
from dockmirror.upstream.resolvers import (
    FAMILIES,
    AddressFamilyResolver,
    FixedAddresses,
    canonical_host,
    threaded_resolver,
)
from dockmirror.upstream.server_trust import tls_policy
from dockmirror.upstream.upstream_endpoints import UpstreamEndpoints
from tests.connections import ALSO_PUBLIC, ALSO_PUBLIC6, PUBLIC, PUBLIC6, Connections, FakeResolver
from tests.listening import Listening, Server, reactor


@pytest_twisted.ensureDeferred
async def test_threaded_resolver(serve: Callable[..., Listening]) -> None:
    """The system's resolver knows literal addresses, and that some names have none."""
    server = serve(Server)
    resolver = threaded_resolver(reactor, 1)
    endpoints = UpstreamEndpoints(reactor, resolver, tls_policy(), AllowedAddresses([], hosts=["127.0.0.1"]))
    agent = Agent.usingEndpointFactory(reactor, endpoints)
    response = await agent.request(b"GET", server.url("127.0.0.1", "http"))
    assert await content(response) == b"hello"
    with pytest.raises(AddressRefused, match=r"127.1 resolves to 127.0.0.1, which is loopback"):
        await agent.request(b"GET", server.url("127.1", "http"))
    for url in (b"http://nowhere.invalid/", b"http://a..example/"):
        with pytest.raises(DNSLookupError):
            await agent.request(b"GET", url)


def test_resolver_threads() -> None:
    """The resolver's threads begin and end with the reactor."""
    memory = MemoryReactorClock()
    verifyObject(IHostnameResolver, threaded_resolver(memory))
    [(start, _, _)] = memory.whenRunningHooks
    [(stop, _, _)] = memory.triggers["during"]["shutdown"]
    start()
    stop()


@implementer(IResolutionReceiver)
class _Receiver:
    """What a name resolved to; its names of resolutions, too."""

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


def test_wrappers() -> None:
    """Each is a resolver itself."""
    verifyObject(IHostnameResolver, FIXED)
    verifyObject(IHostnameResolver, AddressFamilyResolver(BOTH, FAMILIES["4"]))
    verifyObject(IHostResolution, FIXED.resolveHostName(_Receiver(), "fixed.example"))


@pytest.mark.parametrize("name", ["fixed.example", "FIXED.example", "fixed.example."])
def test_fixed(name: str) -> None:
    """A name has the addresses that were written down, however it is spelt, and in their order."""
    assert _resolved(FIXED, name) == ["10.1.2.3", "fd00::1"]


def test_not_fixed() -> None:
    """Any other name is looked up, those below a fixed one, too."""
    assert _resolved(FIXED, "r.example") == [PUBLIC, PUBLIC6, ALSO_PUBLIC, ALSO_PUBLIC6]
    assert _resolved(FIXED, "below.fixed.example") == []


def test_fixed_to_nothing() -> None:
    """A name without addresses has none."""
    assert _resolved(FIXED, "none.example") == []


def test_fixed_types() -> None:
    """Who asks for one family is given no other."""
    assert _resolved(FIXED, "fixed.example", [IPv6Address]) == ["fd00::1"]
    assert _resolved(FIXED, "fixed.example", [IPv4Address]) == ["10.1.2.3"]


@pytest.mark.parametrize("address", ["fixed.example", "10.1.2.3/8", "10.1.2", "", "[::1]"])
def test_no_address(address: str) -> None:
    """What is written down must be an address."""
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
def test_families(versions: str, addresses: list[str]) -> None:
    """Only addresses of the chosen families are given on, the preferred ones first."""
    assert _resolved(AddressFamilyResolver(BOTH, FAMILIES[versions]), "r.example") == addresses


@given(st.lists(st.ip_addresses().map(str)), st.sampled_from(sorted(FAMILIES)))
def test_families_keep_order(addresses: list[str], versions: str) -> None:
    """Within a family the addresses keep the order in which they were given."""
    resolver = AddressFamilyResolver(FakeResolver({"r.example": addresses}), FAMILIES[versions])
    kept = [address for address in addresses if "46"[":" in address] in versions]
    expected = sorted(kept, key=lambda address: versions.index("46"[":" in address]))
    assert _resolved(resolver, "r.example") == expected


def test_preferred_is_dialled_first() -> None:
    """The preferred family is the first that is dialled, and another one only where both are chosen."""
    for versions, dialled in (
        ("6 4", [PUBLIC6, PUBLIC]),
        ("4 6", [PUBLIC, PUBLIC6]),
        ("4", [PUBLIC, ALSO_PUBLIC]),
    ):
        here = Connections({}, resolver=AddressFamilyResolver(BOTH, FAMILIES[versions]))
        here.connect(b"http://r.example/")
        here.reactor.advance(0.3)
        assert here.dialled() == dialled


def test_fixed_is_connected_to() -> None:
    """A fixed address may be private: the operator wrote it down for a name that they configured."""
    allowed = AllowedAddresses([], hosts=FIXED.addresses)
    here = Connections({}, resolver=FIXED, addresses=allowed)
    here.connect(b"https://fixed.example/")
    assert here.dialled() == ["10.1.2.3"]


@given(st.from_regex(r"[A-Za-z.]*", fullmatch=True))
def test_canonical(name: str) -> None:
    """A name with a dot at its end is the name without, and case is of no consequence."""
    assert canonical_host(name) == canonical_host(name.upper()) == canonical_host(canonical_host(name) + ".")
