"""Mirrors of one fleet: a blob that they lack is fetched from its registry by one of them, for all.

All mirrors list the same peers, themselves included.  The digest of a blob ranks the peers, by rendezvous
hashing: each is the first for an equal share of the blobs, and a peer that comes or goes changes the order of
no others.  A mirror asks the first peer that is up, unless that is itself.  So requests only go up in rank,
and never in a circle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import NoReturn

from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from ..interfaces import Answer, IRegistry
from ..oci.digest import Digest
from ..oci.errors import RegistryError, TimedOut
from ..oci.request import Blob, RegistryRequest
from ..oci.token import Credentials
from .failover import UpstreamAddress

PATIENCE = 3.0
"""Seconds that a peer has to begin its answer; then the registry is asked."""
_LOOP_DETECTED = 508
OwnCredentials = Callable[[], Credentials | None]
_log = Logger()


def rank_peers(digest: Digest, addresses: Iterable[str]) -> list[str]:
    """Return the addresses in the order in which the blob's mirrors are chosen."""
    return sorted(addresses, key=lambda address: sha256(f"{digest} {address}".encode()).digest())


@define(eq=False)
class Peer:
    """One mirror of the fleet, at the address by which all know it.

    :ivar is_self: True once the peer has refused a request as its own.
    :param own_host: asks its own host, with the login to the mirror itself, if that needs one.
    :param virtual_host: asks its virtual host for the upstream, with the client's credentials.
    :param count: called with ``answered`` or ``failed`` after each request to another mirror.
    """

    address: str
    _own_host: UpstreamAddress
    _virtual_host: UpstreamAddress
    _credentials: OwnCredentials
    _count: Callable[[str], None]
    _clock: IReactorTime
    is_self: bool = field(default=False, init=False)
    _is_warned: bool = field(default=False, init=False)

    def is_up(self, request: RegistryRequest) -> bool:
        return self._registry(request).open_circuit(request) is None

    async def fetch(self, request: RegistryRequest) -> Answer:
        """:raises RegistryError: when the peer refuses, or does not begin its answer in time."""
        asked = request if request.credentials else evolve(request, credentials=self._credentials())
        asking = Deferred.fromCoroutine(self._registry(request).fetch(asked))
        try:
            answer = await asking.addTimeout(PATIENCE, self._clock, _raise_timed_out)
        except RegistryError as error:
            self.is_self = error.upstream_status == _LOOP_DETECTED
            if not self.is_self:
                self._count("failed")
            raise
        self._count("answered")
        self._is_warned = False
        return answer

    def warn(self, error: RegistryError) -> None:
        """Log an error of ``fetch``, although the registry gives what was asked for, once until a success."""
        if not self.is_self and not self._is_warned:
            self._is_warned = True
            _log.warn("the peer {peer} gives no blobs: {error}", peer=self.address, error=error.summary)

    def _registry(self, request: RegistryRequest) -> UpstreamAddress:
        return self._virtual_host if request.credentials else self._own_host


@implementer(IRegistry)
class PeerFetch:
    """Fetches blobs from the fleet's mirrors for them, and everything else from the registry.

    What a peer refuses, or does not answer in time, is fetched from the registry.
    """

    def __init__(self, registry: IRegistry, peers: Sequence[Peer]) -> None:
        self._registry = registry
        self._peers = {peer.address: peer for peer in peers}

    async def fetch(self, request: RegistryRequest) -> Answer:
        target = request.target
        if not isinstance(target, Blob) or request.head:
            return await self._registry.fetch(request)
        peer = self._choose(target.digest, request)
        if peer is None:
            return await self._registry.fetch(request)
        try:
            return await peer.fetch(request)
        except RegistryError as error:
            failure = error
        answer = await self._registry.fetch(request)
        peer.warn(failure)
        return answer

    def _choose(self, digest: Digest, request: RegistryRequest) -> Peer | None:
        """Return the first peer that is up; None if that is this mirror."""
        ranked = (self._peers[address] for address in rank_peers(digest, self._peers))
        first = next((peer for peer in ranked if peer.is_self or peer.is_up(request)), None)
        return None if first is None or first.is_self else first


def _raise_timed_out(_: object, seconds: float) -> NoReturn:
    raise TimedOut(f"the peer did not answer within {seconds:g} s")
