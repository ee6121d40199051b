"""Pauses after failures: exponential backoff, and the circuit breaker of a registry's requests."""

from __future__ import annotations

from calendar import timegm
from collections.abc import Callable
from copy import copy
from email.utils import parsedate_to_datetime
from enum import Enum
from math import ceil
from typing import Generic, TypeVar

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from ..body.bodies import CorruptContent
from ..oci.errors import RegistryError, TimedOut, Unreachable, Unreadable
from ..oci.request import RegistryRequest, repository_of
from .coroutines import TTLCache

Key = TypeVar("Key")
Reason = TypeVar("Reason")

_MAX_KEYS = 10_000


@frozen
class Pause(Generic[Reason]):
    """A pause after a failure, in the clock's seconds."""

    until: float
    length: float
    reason: Reason


class Backoff(Generic[Key, Reason]):
    """Pauses by key: each failure after a pause makes the next one longer, a success ends them.

    Failures during a pause belong to attempts from before it began: they restart it and do not lengthen it.
    After a pause and the longest one have passed without a failure, the pauses begin with the first again.

    :param first: seconds of the pause after the first failure.
    :param longest: seconds that no pause exceeds.
    :param factor: how much longer each pause is than the one before.
    """

    def __init__(self, clock: IReactorTime, first: float, longest: float, factor: float = 2.0) -> None:
        self._clock = clock
        self._first = first
        self._longest = longest
        self._factor = factor
        self._pauses: TTLCache[Key, Pause[Reason]] = TTLCache(clock, _MAX_KEYS)

    def __bool__(self) -> bool:
        """Return whether there may be a pause."""
        return bool(self._pauses)

    def current_pause(self, key: Key) -> Pause[Reason] | None:
        """Return the pause that lasts now, or None."""
        last = self._pauses.get(key)
        return last if last is not None and self._clock.seconds() < last.until else None

    def record_failure(self, key: Key, reason: Reason, seconds: float | None = None) -> float:
        """Begin a pause, and return its length.

        :param seconds: the length, where the other side has named one.
        """
        last, now = self._pauses.get(key), self._clock.seconds()
        if seconds is not None:
            length = seconds
        elif last is None:
            length = self._first
        else:
            length = last.length if now < last.until else min(self._longest, last.length * self._factor)
        self._pauses.put(key, Pause(now + length, length, reason), length + self._longest)
        return length

    def record_success(self, key: Key) -> None:
        """End the pause, and begin with the first one after the next failure."""
        self._pauses.drop(key)


FIRST, LONGEST = 5.0, 60.0
"""Seconds of the first pause, and of the longest that it doubles to."""
LIMITED = 60.0
LIMITED_LONGEST = 3600.0
"""Seconds of pause after a 429 without ``Retry-After``, and the most that ``Retry-After`` is believed."""
_ANONYMOUS = "anonymous"


def is_outage(error: RegistryError) -> bool:
    """Return whether the error means that the upstream is down, so that held content may be served."""
    return (error.status >= 500 or error.status == 429) and not isinstance(error, CorruptContent)


class _Scope(Enum):
    """A failure that concerns all clients and repositories."""

    CONNECTION = "the upstream cannot be connected to"
    SLOWNESS = "the upstream was too slow"


class RequestCircuitBreaker:
    """Opens a circuit after a failure: for the registry, for credentials, or for a repository.

    A connection that fails concerns the whole registry, a 429 the credentials, any other failure the
    repository.  A failure of another server than the registry concerns only the repository.

    :param isolate: returns a value for requests whose failures do not concern others: those with an equal
        value that is not None share circuits, apart from the rest.
    :param notify: called with the time until which anonymous requests are not sent, or None.
    :param account_of: returns the name of the mirror's account that a request without credentials is sent
        with; empty for the one whose pauses are reported.
    """

    def __init__(
        self,
        clock: IReactorTime,
        isolate: Callable[[RegistryRequest], object] = lambda _: None,
        notify: Callable[[float | None], None] = lambda _: None,
        account_of: Callable[[RegistryRequest], str] = lambda _: "",
    ) -> None:
        self._clock = clock
        self._isolate = isolate
        self._notify = notify
        self._account_of = account_of
        self._backoff: Backoff[object, RegistryError] = Backoff(clock, FIRST, LONGEST)

    def error(self, request: RegistryRequest, can_answer: bool) -> RegistryError | None:
        """Return the failure that opened a circuit of the request, or None if it may be sent.

        A repository that failed, and an upstream that was only slow, are still asked if nothing is held.

        :param can_answer: True if held content can be served instead.
        """
        if not self._backoff:
            return None
        keys: list[object] = [_Scope.CONNECTION, *self._limit_keys(request)]
        if can_answer:
            keys += [_failure_scope(request), _Scope.SLOWNESS]
        isolated = self._isolate(request)
        pauses = (self._backoff.current_pause((isolated, key)) for key in keys)
        now = self._clock.seconds()
        return next((_copy_with_remaining(pause, now) for pause in pauses if pause), None)

    def record_failure(self, request: RegistryRequest, error: RegistryError) -> None:
        """Open the circuit that the failure concerns.

        The error of a 429 is changed to name our own pause, so that the client waits as long.
        """
        seconds = None
        if error.status == 429:
            seconds = _parse_retry_after(error.retry_after, self._clock.seconds())
            error.retry_after = str(ceil(seconds))
        self._backoff.record_failure(
            (self._isolate(request), self._choose_scope(request, error)), copy(error), seconds
        )
        self._notify(self._find_pause_end())

    def record_success(self, request: RegistryRequest) -> None:
        """Close the circuits of the request, but for a 429's, which ends with its time.

        No request is sent in that time: an answer then belongs to one from before it.
        """
        for key in (_Scope.CONNECTION, _Scope.SLOWNESS, _failure_scope(request)):
            self._backoff.record_success((self._isolate(request), key))
        self._notify(self._find_pause_end())

    def _choose_scope(self, request: RegistryRequest, error: RegistryError) -> object:
        if error.status == 429:
            of_credentials, of_repository = self._limit_keys(request)
            return of_repository if error.from_other_host else of_credentials
        if not isinstance(error, Unreachable) or isinstance(error, Unreadable) or error.from_other_host:
            return _failure_scope(request)
        return _Scope.SLOWNESS if isinstance(error, TimedOut) else _Scope.CONNECTION

    def _limit_keys(self, request: RegistryRequest) -> tuple[object, object]:
        """Return the keys of a limit of the credentials, and of one at another server than the registry.

        The latter is for one repository, as a token is.
        """
        who: object = _ANONYMOUS
        if request.credentials:
            who = "credentials", request.credentials.fingerprint()
        elif account := self._account_of(request):
            who = "account", account
        return who, (who, _failure_scope(request))

    def _find_pause_end(self) -> float | None:
        pauses = (self._backoff.current_pause((None, key)) for key in (_Scope.CONNECTION, _ANONYMOUS))
        return max((pause.until for pause in pauses if pause), default=None)


def _copy_with_remaining(pause: Pause[RegistryError], now: float) -> RegistryError:
    """Return a copy of the error: an exception that is raised again and again grows its traceback."""
    error = copy(pause.reason)
    if error.status == 429:
        error.retry_after = str(ceil(pause.until - now))
    return error


def _failure_scope(request: RegistryRequest) -> object:
    """Return the key of a repository's failures: its manifests, its blobs, and each kind of list."""
    return type(request.target), repository_of(request.target)


def _parse_retry_after(retry_after: str | None, now: float) -> float:
    """Return the seconds that a ``Retry-After`` names (RFC 9110, 10.2.3)."""
    if retry_after is None:
        return LIMITED
    if retry_after.isdecimal():
        return min(LIMITED_LONGEST, float(retry_after))
    try:
        at = timegm(parsedate_to_datetime(retry_after).utctimetuple())
    except (ValueError, TypeError, OverflowError):
        return LIMITED
    return min(LIMITED_LONGEST, max(0.0, at - now))
