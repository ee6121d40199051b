"""Tags in use, confirmed before their time to live ends, so that no client waits for the upstream.

A hit plans one refresh of the tag: for a moment before the end of its time to live, or, if the tag was served
beyond that, for now.  A refresh is what an anonymous client would ask with ``no-cache``: a HEAD, and a GET if
the tag has moved.  A tag that nobody asks for again is asked about once at most.

- Only public tags are refreshed: the cache answers no others without the upstream.
- The moments differ between tags and processes; a process sends an upstream at most ``PER_SECOND``.
- Nothing is refreshed while the upstream is down, and for ``LIMIT_PAUSE`` after its 429 to the same
  account of the mirror.
- Of several processes one refreshes a tag at a time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import uniform

from attrs import evolve, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..interfaces import Answer, IRegistry
from ..oci.errors import RegistryError
from ..oci.header_fields import CacheResult, CacheStatus
from ..oci.media import EVERYTHING
from ..oci.request import InRepository, Manifest, RegistryRequest, Tag

EARLIEST, LATEST = 0.7, 0.85
"""Shares of the time to live between which a tag is refreshed."""
PER_SECOND = 10
"""Refreshes that one process begins in a second."""
LIMIT_PAUSE = 600.0
"""Seconds without a refresh after the upstream's 429."""
_MAX_PLANNED = 10_000
_log = Logger()

Release = Callable[[], None]


@frozen
class RefreshContext:
    """Everything that refreshes need, for one upstream.

    :ivar ttl: returns the seconds for which a tag is fresh.
    :ivar is_ahead: True if tags are refreshed before they are stale.
    :ivar claim: returns a function that ends this process's turn, or None if another one refreshes the tag.
    :ivar open_circuit: returns the error for which the upstream is not asked now, or None.
    :ivar account_of: returns the name of the mirror's account that a request is sent with.
    :ivar count: counts a refresh: "confirmed", "moved" or "failed".
    """

    ttl: Callable[[InRepository], float]
    is_ahead: bool
    claim: Callable[[Manifest], Awaitable[Release | None]]
    open_circuit: Callable[[RegistryRequest], RegistryError | None]
    account_of: Callable[[RegistryRequest], str]
    count: Callable[[str], None]
    clock: IReactorTime


@implementer(IRegistry)
class TagRefresher:
    """Refreshes the tags that clients are served without the upstream.

    :param registry: the cache.
    """

    def __init__(self, registry: IRegistry, context: RefreshContext) -> None:
        self._registry = registry
        self._context = context
        self._planned: dict[Manifest, IDelayedCall | Deferred[None]] = {}
        self._next_start = 0.0
        self._resumes: dict[str, float] = {}
        self._is_stopped = False

    async def fetch(self, request: RegistryRequest) -> Answer:
        answer = await self._registry.fetch(request)
        if isinstance(request.target, Manifest) and isinstance(request.target.reference, Tag):
            self._plan(request.target, answer.cache)
        return answer

    def stop(self) -> None:
        """Cancel what is planned or runs, and plan nothing more."""
        self._is_stopped = True
        planned, self._planned = self._planned, {}
        for each in planned.values():
            each.cancel()

    def _plan(self, target: Manifest, status: CacheStatus | None) -> None:
        if target in self._planned or len(self._planned) >= _MAX_PLANNED or self._is_stopped:
            return
        if status is None or status.age is None:
            return
        if status.result is CacheResult.STALE_WHILE_REVALIDATE:
            self._start_in_turn(target)
        elif status.result is CacheResult.HIT and self._context.is_ahead:
            age = self._context.ttl(target) * uniform(EARLIEST, LATEST)
            delay = max(0.0, age - status.age)
            self._planned[target] = self._context.clock.callLater(delay, self._start_in_turn, target)

    def _start_in_turn(self, target: Manifest) -> None:
        """Begin the refresh as soon as the limit allows."""
        now = self._context.clock.seconds()
        start = max(now, self._next_start)
        self._next_start = start + 1 / PER_SECOND
        self._planned[target] = self._context.clock.callLater(start - now, self._start, target)

    def _start(self, target: Manifest) -> None:
        running = self._planned[target] = Deferred.fromCoroutine(self._refresh(target))
        running.addBoth(self._end, target)

    def _end(self, outcome: Failure | None, target: Manifest) -> None:
        self._planned.pop(target, None)
        if isinstance(outcome, Failure) and not outcome.check(CancelledError):
            _log.failure("{target} cannot be refreshed", outcome, target=str(target))

    async def _refresh(self, target: Manifest) -> None:
        request = RegistryRequest(target, head=True, accept=EVERYTHING)
        if self._is_paused(request):
            return
        release = await self._context.claim(target)
        if release is None:
            return
        try:
            if not await self._is_refreshed(request):
                self._context.count(await self._ask(request))
        finally:
            release()
        self._record_limit(request)

    def _is_paused(self, request: RegistryRequest) -> bool:
        """Return whether the upstream is not to be asked now."""
        self._record_limit(request)
        resumes = self._resumes.get(self._context.account_of(request), 0.0)
        is_limited = self._context.clock.seconds() < resumes
        return is_limited or self._context.open_circuit(request) is not None

    def _record_limit(self, request: RegistryRequest) -> None:
        """Begin a pause if the upstream has answered 429, to a client or to a refresh."""
        error = self._context.open_circuit(request)
        if error is not None and error.status == 429:
            resumes = self._context.clock.seconds() + LIMIT_PAUSE
            self._resumes[self._context.account_of(request)] = resumes

    async def _is_refreshed(self, request: RegistryRequest) -> bool:
        """Return whether another process, or a client, has refreshed the tag meanwhile."""
        assert isinstance(request.target, Manifest)
        status = await self._fetch_status(request)
        if status is None or status.result is CacheResult.STALE_WHILE_REVALIDATE:
            return False
        is_old = status.age is not None and status.age >= self._context.ttl(request.target) * EARLIEST
        return status.result is not CacheResult.HIT or not is_old

    async def _ask(self, request: RegistryRequest) -> str:
        """Ask the upstream, and return the outcome."""
        status = await self._fetch_status(evolve(request, revalidate=True))
        if status is None or status.result is CacheResult.STALE:
            return "failed"
        return "confirmed" if status.result is CacheResult.CONFIRMED else "moved"

    async def _fetch_status(self, request: RegistryRequest) -> CacheStatus | None:
        """Return the part that the cache had in the answer, or None for an error."""
        try:
            answer = await self._registry.fetch(request)
        except RegistryError as error:
            _log.info("{target} was not refreshed: {error}", target=str(request.target), error=error.summary)
            return None
        answer.body.discard()
        return answer.cache
