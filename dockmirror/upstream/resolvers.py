"""Host name resolvers: the system's in threads, fixed addresses, and a choice of address families."""

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
    """Return the system's resolver, without a cache, in threads that nothing else can keep busy.

    :param reactor: provides ``IReactorCore`` and ``IReactorThreads``; the threads live while it runs.
    """
    pool = ThreadPool(0, threads, "names")
    reactor.callWhenRunning(pool.start)
    reactor.addSystemEventTrigger("during", "shutdown", pool.stop)
    return GAIResolver(reactor, lambda: pool)


def canonical_host(name: str) -> str:
    """Return a host name in lower case and without a dot at its end."""
    return name.lower().removesuffix(".")


def _parse_addresses(addresses: Mapping[str, Iterable[str]]) -> Mapping[str, Sequence[str]]:
    return {
        canonical_host(name): [str(ip_address(literal)) for literal in literals]
        for name, literals in addresses.items()
    }


@implementer(IHostnameResolver)
@frozen
class FixedAddresses:
    """Resolves some names to the addresses that the operator configured, and the others as another resolver
    does.

    The configured names belong among the ``hosts`` of ``AllowedAddresses``, which allows connections to them,
    and among the ``fixed_names`` of ``UpstreamEndpoints``, so that no proxy looks them up.

    :ivar addresses: of each such name, the preferred one first.
    :raises ValueError: for an invalid address.
    """

    resolver: IHostnameResolver
    addresses: Mapping[str, Sequence[str]] = field(converter=_parse_addresses)

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
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
    """Filters another resolver's addresses by family and sorts them, the first family first."""

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
        receiver = _SortedReceiver(resolutionReceiver, self.families)
        return self.resolver.resolveHostName(receiver, hostName, portNumber, addressTypes, transportSemantics)


@implementer(IResolutionReceiver)
@frozen
class _SortedReceiver:
    """Collects all addresses, and passes on those of the given families in their order."""

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
