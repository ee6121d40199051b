"""Mirrors of one fleet: a blob that they lack is fetched from its registry by one of them, for all.

All mirrors list the same peers, themselves included.  The digest of a blob ranks the peers, by rendezvous
hashing: each is the first for an equal share of the blobs, and a peer that comes or goes changes the order of
no others.  A mirror asks the first peer that is up, unless that is itself.  One that a peer asks, asks the
registry: so no request passes two peers, whatever their lists say.

A peer gives bytes, which their digest verifies.  Its answer is no consent: its settings, its accounts and its
cache may be others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import NoReturn

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..body.bodies import Slice
from ..concurrency.coroutines import TTLCache
from ..interfaces import Answer, IBody, IRegistry
from ..oci.digest import Descriptor, Digest
from ..oci.errors import RegistryError, TimedOut
from ..oci.request import Blob, RegistryRequest
from ..system.request_context import current_hops
from .failover import QUARANTINE_TTL, UpstreamAddress

PATIENCE = 3.0
"""Seconds that a peer has to begin its answer; then the registry is asked."""
STALL_TIMEOUT = 10.0
"""Seconds in which a peer that is being read must send something; then the registry is asked for the rest."""
_LOOP_DETECTED = 508
_MOST = 10_000
_log = Logger()


def rank_peers(digest: Digest, addresses: Iterable[str]) -> list[str]:
    """Return the addresses in the order in which the blob's mirrors are chosen."""
    return sorted(addresses, key=lambda address: sha256(f"{digest} {address}".encode()).digest())


@define(eq=False)
class Peer:
    """One mirror of the fleet, at the address by which all know it.

    :ivar is_self: True once the peer has refused a request as its own.
    :param own_host: asks its own host.
    :param virtual_host: asks its virtual host for the upstream, with the client's credentials.
    :param namespace: the registry that is meant: a peer whose hosts are others refuses the request.
    :param count: called with ``answered`` or ``failed`` after each request to another mirror.
    """

    address: str
    _own_host: UpstreamAddress
    _virtual_host: UpstreamAddress
    _namespace: str
    _count: Callable[[str], None]
    _clock: IReactorTime
    is_self: bool = field(default=False, init=False)
    _is_warned: bool = field(default=False, init=False)
    _broken: TTLCache[Digest, bool] = field(init=False)

    @_broken.default
    def _make_broken(self) -> TTLCache[Digest, bool]:
        return TTLCache(self._clock, _MOST)

    def is_up(self, request: RegistryRequest) -> bool:
        return self._registry(request).open_circuit(request) is None

    def has_broken(self, digest: Digest) -> bool:
        """Return whether it has sent the blob wrong or incomplete within the last minute."""
        return self._broken.get(digest) is not None

    async def fetch(self, request: RegistryRequest, digest: Digest) -> Answer:
        """Return the answer without its entity tag, which the registry's answers for the rest may not have.

        :raises RegistryError: when the peer refuses, or does not begin its answer in time.
        """
        named = evolve(request, query=(("ns", self._namespace),))
        asking = Deferred.fromCoroutine(self._registry(request).fetch(named))
        try:
            answer = await asking.addTimeout(PATIENCE, self._clock, _raise_timed_out)
        except RegistryError as error:
            self.is_self = error.upstream_status == _LOOP_DETECTED
            if not self.is_self:
                self._count("failed")
            raise
        self._count("answered")
        self._is_warned = False
        part, body = answer.content_range, answer.body
        if part is not None:
            body = Slice(body, 0, part.length)
        return evolve(
            answer,
            body=_PeerBody(body, lambda: self._record_broken(digest)),
            headers=tuple(each for each in answer.headers if each[0] != "ETag"),
            from_other_host=True,
            reject=self._record_broken,
        )

    def warn(self, error: RegistryError) -> None:
        """Log an error of ``fetch``, although the registry gives what was asked for, once until a success."""
        if not self.is_self and not self._is_warned:
            self._is_warned = True
            _log.warn("the peer {peer} gives no blobs: {error}", peer=self.address, error=error.summary)

    def _registry(self, request: RegistryRequest) -> UpstreamAddress:
        return self._virtual_host if request.credentials else self._own_host

    def _record_broken(self, digest: Digest) -> None:
        self._broken.put(digest, True, QUARANTINE_TTL)


@implementer(IBody)
@frozen
class _PeerBody:
    """A body that reports its failure."""

    _body: IBody
    _on_failure: Callable[[], None]

    @property
    def descriptor(self) -> Descriptor:
        return self._body.descriptor

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        return self._body.deliver(consumer).addErrback(self._report)

    def discard(self) -> None:
        self._body.discard()

    def _report(self, failure: Failure) -> Failure:
        if failure.check(RegistryError):
            self._on_failure()
        return failure


@implementer(IRegistry)
class PeerFetch:
    """Fetches blobs from the fleet's mirrors for them, and everything else from the registry.

    A blob that a peer refuses, or does not answer in time, is fetched from the registry.  So is the rest of
    one that it breaks off.
    """

    def __init__(self, registry: IRegistry, peers: Sequence[Peer]) -> None:
        self._registry = registry
        self._peers = {peer.address: peer for peer in peers}

    async def fetch(self, request: RegistryRequest) -> Answer:
        target = request.target
        if not isinstance(target, Blob) or request.head or _is_asked_by_peer():
            return await self._registry.fetch(request)
        peer = self._choose(target.digest, request)
        if peer is None:
            return await self._registry.fetch(request)
        try:
            return await peer.fetch(request, target.digest)
        except RegistryError as error:
            failure = error
        answer = await self._registry.fetch(request)
        peer.warn(failure)
        return answer

    def _choose(self, digest: Digest, request: RegistryRequest) -> Peer | None:
        """Return the first peer that is up; None if that is this mirror, or has just failed with the blob."""
        ranked = (self._peers[address] for address in rank_peers(digest, self._peers))
        first = next((peer for peer in ranked if peer.is_self or peer.is_up(request)), None)
        return None if first is None or first.is_self or first.has_broken(digest) else first


def _is_asked_by_peer() -> bool:
    """Return whether another mirror of the fleet has asked; a peer that asked on might be asked back."""
    hops = current_hops.get()
    return bool(hops) and hops[-1].is_peer


def _raise_timed_out(_: object, seconds: float) -> NoReturn:
    raise TimedOut(f"the peer did not answer within {seconds:g} s")
