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
"""What connects to an address and a port: TCP, or a proxy over TCP."""


class AddressRefused(Exception):
    """None of the addresses of a host may be connected to; the message says why."""


@implementer(IStreamClientEndpoint)
@frozen
class CheckedAddressEndpoint:
    """Whichever allowed address of a host answers first (RFC 8305).

    An address is judged after resolution and dialled as it was judged: there is no second resolution.

    :ivar timeout: seconds to resolve the name and to connect.
    :ivar reached: told of the host and of each of its addresses that is about to be dialled.
    """

    host: str
    port: int
    resolver: IHostnameResolver
    addresses: AllowedAddresses
    dial: Dial
    timeout: float
    clock: IReactorTime
    reached: Callable[[str, str], None]

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """See ``IStreamClientEndpoint``."""
        connecting = Deferred.fromCoroutine(self._connect(protocolFactory))
        return with_timeout(connecting, self.timeout, self.clock, f"connecting to {self.host}")

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        addresses = _alternating(self._allowed(await self._resolve()))
        for address in addresses:
            self.reached(self.host, address.host)
        attempts = [self._attempt(address, n, factory) for n, address in enumerate(addresses)]
        try:
            _, protocol = await race(attempts)
        except FailureGroup as group:
            group.failures[-1].raiseException()
        return protocol

    async def _resolve(self) -> Sequence[_Address]:
        try:
            self.host.encode("idna")
        except UnicodeError as error:  # on which GAIResolver would never answer
            raise DNSLookupError(f"{self.host} is no host's name") from error
        answers = _ResolvedAddresses()
        self.resolver.resolveHostName(answers, self.host, self.port)
        return await answers.complete

    def _allowed(self, addresses: Sequence[_Address]) -> Sequence[_Address]:
        refusals = [self.addresses.refusal(self.host, self.port, address.host) for address in addresses]
        allowed = [address for address, refusal in zip(addresses, refusals, strict=True) if refusal is None]
        if not refusals:
            raise DNSLookupError(f"{self.host} has no address")
        if not allowed:
            raise AddressRefused(refusals[0])
        return allowed

    def _attempt(self, address: _Address, n: int, factory: IProtocolFactory) -> Deferred[IProtocol]:
        endpoint = self.dial(address.host, self.port)
        return deferLater(self.clock, n * _ATTEMPT_DELAY).addCallback(lambda _: endpoint.connect(factory))


@implementer(IResolutionReceiver)
class _ResolvedAddresses:
    """Collects what a name resolves to."""

    def __init__(self) -> None:
        self._addresses: list[_Address] = []
        self.complete: Deferred[Sequence[_Address]] = Deferred()

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """Nothing to do: Twisted's resolutions cannot be cancelled."""

    def addressResolved(self, address: Any) -> None:
        self._addresses.append(address)

    def resolutionComplete(self) -> None:
        self.complete.callback(self._addresses)


def _alternating(addresses: Sequence[_Address]) -> Sequence[_Address]:
    """Both families in turn, so that a broken one costs one delay and not one for each of its addresses."""
    preferred = [address for address in addresses if type(address) is type(addresses[0])]
    others = [address for address in addresses if type(address) is not type(addresses[0])]
    return [address for pair in zip_longest(preferred, others) for address in pair if address is not None]
