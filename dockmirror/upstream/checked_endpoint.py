"""Name resolution, and connections to the addresses that are allowed after it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import ip_address
from itertools import zip_longest
from types import MappingProxyType
from typing import Any

from attrs import field, frozen
from twisted.internet._resolver import GAIResolver, HostResolution
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred, FailureGroup, race
from twisted.internet.error import ConnectingCancelledError, DNSLookupError
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IResolutionReceiver,
    IStreamClientEndpoint,
)
from twisted.internet.task import deferLater
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from ..concurrency.coroutines import TTLCache
from .addresses import AllowedAddresses
from .bounded_endpoint import with_timeout

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
ADDRESSES_TTL, ADDRESSES_RENEWED = 60.0, 20.0
"""Seconds for which addresses are remembered, and after which the next use looks the name up again."""
_MAX_NAMES = 1000


def threaded_resolver(reactor: Any, threads: int = 10) -> IHostnameResolver:
    """Return the system's resolver in threads that nothing else can keep busy.

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
        families: Any = ((IPv6Address if ":" in address else IPv4Address, address) for address in fixed)
        return _resolve_at_once(
            resolutionReceiver,
            hostName,
            (
                family(transportSemantics, address, portNumber)
                for family, address in families
                if addressTypes is None or family in addressTypes
            ),
        )


def _resolve_at_once(
    receiver: IResolutionReceiver, host: str, addresses: Iterable[IAddress]
) -> IHostResolution:
    """Give known addresses to the receiver."""
    resolution = HostResolution(host)
    receiver.resolutionBegan(resolution)
    for address in addresses:
        receiver.addressResolved(address)
    receiver.resolutionComplete()
    return resolution


@implementer(IResolutionReceiver)
class _AddressRecorder:
    """Passes addresses on, and reports all of them at the end."""

    def __init__(
        self, receiver: IResolutionReceiver | None, report: Callable[[Sequence[IAddress]], None]
    ) -> None:
        self._receiver = receiver
        self._report = report
        self._addresses: list[IAddress] = []

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        if self._receiver is not None:
            self._receiver.resolutionBegan(resolutionInProgress)

    def addressResolved(self, address: IAddress) -> None:
        self._addresses.append(address)
        if self._receiver is not None:
            self._receiver.addressResolved(address)

    def resolutionComplete(self) -> None:
        self._report(self._addresses)
        if self._receiver is not None:
            self._receiver.resolutionComplete()


_LookUp = tuple[str, int, Sequence[type[IAddress]] | None, str]


@implementer(IHostnameResolver)
class AddressCache:
    """Remembers the addresses that another resolver found, so that new connections need not wait for it.

    A name that is used again after ``ADDRESSES_RENEWED`` is looked up once more, for which nobody waits.  A
    name without an address is not remembered.
    """

    def __init__(self, resolver: IHostnameResolver, clock: IReactorTime) -> None:
        self._resolver = resolver
        self._found: TTLCache[_LookUp, Sequence[IAddress]] = TTLCache(clock, _MAX_NAMES)
        self._recent: TTLCache[_LookUp, bool] = TTLCache(clock, _MAX_NAMES)

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        types = None if addressTypes is None else tuple(addressTypes)
        look_up = canonical_host(hostName), portNumber, types, transportSemantics
        found = self._found.get(look_up)
        if found is None:
            return self._ask(look_up, resolutionReceiver)
        if self._recent.get(look_up) is None:
            self._recent.put(look_up, True, ADDRESSES_RENEWED)
            self._ask(look_up, None)
        return _resolve_at_once(resolutionReceiver, hostName, found)

    def _ask(self, look_up: _LookUp, receiver: IResolutionReceiver | None) -> IHostResolution:
        def report(addresses: Sequence[IAddress]) -> None:
            if addresses:
                self._found.put(look_up, addresses, ADDRESSES_TTL)
                self._recent.put(look_up, True, ADDRESSES_RENEWED)

        return self._resolver.resolveHostName(_AddressRecorder(receiver, report), *look_up)


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


_ATTEMPT_DELAY = 0.3

_Address = IPv4Address | IPv6Address
Dial = Callable[[str, int], IStreamClientEndpoint]
"""Returns an endpoint for an address and a port: TCP, or a proxy over TCP."""


class AddressRefused(Exception):
    """None of the addresses of a host may be connected to; the message says why."""


@implementer(IStreamClientEndpoint)
@frozen
class CheckedAddressEndpoint:
    """Connects to the allowed address of a host that answers first (RFC 8305).

    An address is checked after resolution and dialled as it was checked: there is no second resolution.
    A connection that is cancelled fails with ``CancelledError`` at any moment, unlike Twisted's endpoints.

    :ivar timeout: seconds to resolve the name and to connect.
    :ivar on_dial: called with the host and each of its addresses that is about to be dialled.
    """

    host: str
    port: int
    resolver: IHostnameResolver
    addresses: AllowedAddresses
    dial: Dial
    timeout: float
    clock: IReactorTime
    on_dial: Callable[[str, str], None]

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        connecting = Deferred.fromCoroutine(self._connect(protocolFactory))
        return with_timeout(connecting, self.timeout, self.clock, f"connecting to {self.host}")

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        addresses = _alternate_families(self._filter_allowed(await self._resolve()))
        for address in addresses:
            self.on_dial(self.host, address.host)
        attempts = [self._attempt(address, index, factory) for index, address in enumerate(addresses)]
        try:
            _, protocol = await race(attempts)
        except FailureGroup as group:
            if any(failure.check(CancelledError, ConnectingCancelledError) for failure in group.failures):
                raise CancelledError from group
            group.failures[-1].raiseException()
        return protocol

    async def _resolve(self) -> Sequence[_Address]:
        try:
            self.host.encode("idna")
        except UnicodeError as error:  # GAIResolver would never complete
            raise DNSLookupError(f"{self.host} is not a valid host name") from error
        answers = _ResolvedAddresses()
        self.resolver.resolveHostName(answers, self.host, self.port)
        return await answers.complete

    def _filter_allowed(self, addresses: Sequence[_Address]) -> Sequence[_Address]:
        refusals = [
            self.addresses.explain_refusal(self.host, self.port, address.host) for address in addresses
        ]
        allowed = [address for address, refusal in zip(addresses, refusals, strict=True) if refusal is None]
        if not refusals:
            raise DNSLookupError(f"{self.host} has no address")
        if not allowed:
            raise AddressRefused(refusals[0])
        return allowed

    def _attempt(self, address: _Address, index: int, factory: IProtocolFactory) -> Deferred[IProtocol]:
        endpoint = self.dial(address.host, self.port)
        return deferLater(self.clock, index * _ATTEMPT_DELAY).addCallback(lambda _: endpoint.connect(factory))


@implementer(IResolutionReceiver)
class _ResolvedAddresses:
    def __init__(self) -> None:
        self._addresses: list[_Address] = []
        self.complete: Deferred[Sequence[_Address]] = Deferred()

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """Do nothing: Twisted's resolutions cannot be cancelled."""

    def addressResolved(self, address: Any) -> None:
        self._addresses.append(address)

    def resolutionComplete(self) -> None:
        self.complete.callback(self._addresses)


def _alternate_families(addresses: Sequence[_Address]) -> Sequence[_Address]:
    """Alternate the address families, so that a broken one costs one delay and not one for each address."""
    preferred = [address for address in addresses if type(address) is type(addresses[0])]
    others = [address for address in addresses if type(address) is not type(addresses[0])]
    return [address for pair in zip_longest(preferred, others) for address in pair if address is not None]
