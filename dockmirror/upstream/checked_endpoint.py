"""Connections to addresses that are checked after resolution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

from attrs import frozen
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, FailureGroup, race
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import (
    IHostnameResolver,
    IHostResolution,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IResolutionReceiver,
    IStreamClientEndpoint,
)
from twisted.internet.task import deferLater
from zope.interface import implementer

from .addresses import AllowedAddresses
from .bounded_endpoint import with_timeout

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
