"""Connections to an upstream in memory: names that resolve, peers that are dialled, and wires to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IHostnameResolver, IHostResolution, IResolutionReceiver, ITCPTransport
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, HTTPConnectionPool
from twisted.web.iweb import IResponse
from zope.interface import directlyProvides, implementer

from dockmirror.upstream.addresses import AllowedAddresses
from dockmirror.upstream.upstream_endpoints import UpstreamEndpoints, make_tls_policy

PUBLIC, ALSO_PUBLIC, PUBLIC6, ALSO_PUBLIC6 = "8.8.8.8", "8.8.4.4", "2606:4700::1", "2606:4700::2"


@implementer(IHostResolution)
class _Resolution:
    name = "resolved in memory"

    def cancel(self) -> None:
        raise NotImplementedError


@implementer(IHostnameResolver)
class FakeResolver:
    """Knows some names, and no others; answers late where it is told to wait."""

    def __init__(self, names: dict[str, list[str]], when: Callable[[], Deferred[None]] | None = None) -> None:
        self._names = names
        self._when = when or (lambda: succeed(None))

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[Any] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """See ``IHostnameResolver``."""
        resolutionReceiver.resolutionBegan(_Resolution())
        self._when().addCallback(lambda _: self._answer(resolutionReceiver, hostName, portNumber))
        return _Resolution()

    def _answer(self, receiver: IResolutionReceiver, name: str, port: int) -> None:
        for address in self._names.get(name, []):
            receiver.addressResolved((IPv6Address if ":" in address else IPv4Address)("TCP", address, port))
        receiver.resolutionComplete()


class Wire(StringTransport):
    """A TCP connection in memory: aborted, it is lost in the reactor's next turn."""

    bufferSize = 0

    def __init__(self, reactor: MemoryReactorClock, protocol: Any) -> None:
        super().__init__(lenient=True)
        directlyProvides(self, ITCPTransport)
        self.reactor = reactor
        self.protocol = protocol
        self.aborted = False
        self.delay = True

    def abortConnection(self) -> None:
        """See ``ITCPTransport``."""
        self.aborted = True
        self.reactor.callLater(0, self.protocol.connectionLost, Failure(ConnectionAborted()))

    def setTcpNoDelay(self, enabled: bool) -> None:
        """See ``ITCPTransport``."""
        self.delay = not enabled


class Connections:
    """Endpoints over a reactor in memory, and what their connections come to."""

    def __init__(self, names: dict[str, list[str]], **choices: Any) -> None:
        self.reactor = MemoryReactorClock()
        choices.setdefault("addresses", AllowedAddresses([]))
        choices.setdefault("resolver", FakeResolver(names))
        self.endpoints = UpstreamEndpoints(self.reactor, tls=make_tls_policy(), **choices)
        self.pool = HTTPConnectionPool(self.reactor)
        self.agent = Agent.usingEndpointFactory(self.reactor, self.endpoints, self.pool)

    def connect(self, url: bytes) -> Deferred[Any]:
        """A connection for that address, on its way."""
        connecting = self.endpoints.endpointForURI(URI.fromBytes(url)).connect(Factory.forProtocol(Protocol))
        self.reactor.advance(0)
        return connecting

    def dialled(self) -> list[str]:
        """The addresses that were dialled so far."""
        return [host for host, *_ in self.reactor.tcpClients]

    def accept(self) -> Wire:
        """The peer that was dialled last accepts."""
        host, port, factory, *_ = self.reactor.tcpClients[-1]
        protocol: Any = factory.buildProtocol(IPv4Address("TCP", host, port))
        wire = Wire(self.reactor, protocol)
        protocol.makeConnection(wire)
        return wire

    def get(self, method: bytes = b"GET", body: Any = None) -> Deferred[IResponse]:
        """A request, on its way."""
        asked: Deferred[IResponse] = self.agent.request(method, b"http://r.example/", None, body)
        self.reactor.advance(0)
        return asked


def connections(*addresses: str, **choices: Any) -> Connections:
    """The connections to ``r.example``, which has these addresses."""
    return Connections({"r.example": list(addresses)}, **choices)


def failure_of(waiting: Deferred[Any]) -> Any:
    """The exception that a Deferred has failed with."""
    results: list[Any] = []
    waiting.addBoth(results.append)
    assert results, "nothing has happened"
    assert isinstance(results[0], Failure)
    return results[0].value


def result_of(waiting: Deferred[Any]) -> Any:
    """Return the result of a Deferred that has fired."""
    results: list[Any] = []
    waiting.addBoth(results.append)
    assert results, "nothing has happened"
    assert not isinstance(results[0], Failure), results[0]
    return results[0]
