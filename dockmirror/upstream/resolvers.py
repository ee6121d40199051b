"""Names looked up: by the system, as the operator wrote them down, of one family only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address
from types import MappingProxyType
from typing import Any

from attrs import field, frozen
from twisted.internet._resolver import GAIResolver, HostResolution
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IResolutionReceiver,
)
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

Family = type[IPv4Address] | type[IPv6Address]
FAMILIES: Mapping[str, Sequence[Family]] = MappingProxyType(
    {
        "4": (IPv4Address,),
        "6": (IPv6Address,),
        "4 6": (IPv4Address, IPv6Address),
        "6 4": (IPv6Address, IPv4Address),
    }
)
"""The families of the Internet Protocol by their versions, the preferred one first."""


def threaded_resolver(reactor: Any, threads: int = 10) -> IHostnameResolver:
    """The system's resolver in threads of its own, which nothing else can keep busy.  It caches nothing.

    :param reactor: provides ``IReactorCore`` and ``IReactorThreads``; the threads live while it runs.
    """
    pool = ThreadPool(0, threads, "names")
    reactor.callWhenRunning(pool.start)
    reactor.addSystemEventTrigger("during", "shutdown", pool.stop)
    return GAIResolver(reactor, lambda: pool)


def canonical_host(name: str) -> str:
    """The one spelling of a name: in lower case, and without a dot at its end."""
    return name.lower().removesuffix(".")


def _parsed(addresses: Mapping[str, Iterable[str]]) -> Mapping[str, Sequence[str]]:
    return {
        canonical_host(name): [str(ip_address(each)) for each in each_of]
        for name, each_of in addresses.items()
    }


@implementer(IHostnameResolver)
@frozen
class FixedAddresses:
    """Some names have the addresses that the operator wrote down, and the rest those that they resolve to.

    Whoever writes an address down wants it connected to: such names belong among the ``hosts`` of
    ``AllowedAddresses``, and among the ``fixed`` of ``Endpoints``, so that no proxy looks them up.

    :ivar addresses: of each such name, the preferred one first.
    :raises ValueError: for what is no address.
    """

    resolver: IHostnameResolver
    addresses: Mapping[str, Sequence[str]] = field(converter=_parsed)

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """See ``IHostnameResolver``."""
        fixed = self.addresses.get(canonical_host(hostName))
        if fixed is None:
            return self.resolver.resolveHostName(
                resolutionReceiver, hostName, portNumber, addressTypes, transportSemantics
            )
        resolution = HostResolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)
        for address in fixed:
            family: Any = IPv6Address if ":" in address else IPv4Address
            if addressTypes is None or family in addressTypes:
                resolutionReceiver.addressResolved(family(transportSemantics, address, portNumber))
        resolutionReceiver.resolutionComplete()
        return resolution


@implementer(IHostnameResolver)
@frozen
class AddressFamilyResolver:
    """Another resolver's addresses of some families, those of the first one first; see ``FAMILIES``."""

    resolver: IHostnameResolver
    families: Sequence[Family]

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """See ``IHostnameResolver``."""
        receiver = _SortedReceiver(resolutionReceiver, self.families)
        return self.resolver.resolveHostName(receiver, hostName, portNumber, addressTypes, transportSemantics)


@implementer(IResolutionReceiver)
@frozen
class _SortedReceiver:
    """Gives on what is of certain families, in their order, when it has all."""

    receiver: IResolutionReceiver
    families: Sequence[Family]
    addresses: list[IAddress] = field(factory=list)

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        self.receiver.resolutionBegan(resolutionInProgress)

    def addressResolved(self, address: IAddress) -> None:
        self.addresses.append(address)

    def resolutionComplete(self) -> None:
        for family in self.families:
            for address in self.addresses:
                if isinstance(address, family):
                    self.receiver.addressResolved(address)
        self.receiver.resolutionComplete()
