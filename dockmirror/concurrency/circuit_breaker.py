"""Who is left alone after a failure, and for how long, so that one client's trouble is not everybody's."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from email.utils import parsedate_to_datetime
from enum import Enum
from math import ceil

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from ..body.verified import CorruptContent
from ..oci.errors import RegistryError, TimedOut, Unreachable, Unreadable
from ..oci.request import RegistryRequest, repository_of
from .ttl_cache import TTLCache

FIRST, LONGEST = 5.0, 60.0
"""Seconds of rest after the first failure, doubled with each that follows it up to the longest."""
LIMITED = 60.0
"""Seconds of rest after a 429 that names no time."""
LIMITED_LONGEST = 3600.0
_MOST = 10_000
_ANONYMOUS = "anonymous"


def is_outage(error: RegistryError) -> bool:
    """Whether the upstream could not say anything: then what is held may stand in for it."""
    return (error.status >= 500 or error.status == 429) and not isinstance(error, CorruptContent)


class _All(Enum):
    """What is not one client's, and not one repository's."""

    CONNECTION = "the upstream cannot be connected to"
    PACE = "the upstream was too slow"


@frozen
class _OpenCircuit:
    until: float
    length: float
    error: RegistryError


class RequestCircuitBreaker:
    """A registry that cannot be connected to, credentials at their limit, repositories that fail.

    What another server than the registry itself has failed with says nothing of the rest.

    :param apart: tells of which requests a failure says nothing of others: those of an equal value that is
        not None rest together, and apart from the rest.
    :param rests: is told until when nothing is asked for whoever brings no credentials, None where it is.
    """

    def __init__(
        self,
        clock: IReactorTime,
        apart: Callable[[RegistryRequest], object] = lambda _: None,
        rests: Callable[[float | None], None] = lambda _: None,
    ) -> None:
        self._clock = clock
        self._apart = apart
        self._tell = rests
        self._rests: TTLCache[object, _OpenCircuit] = TTLCache(clock, _MOST)

    def error(self, request: RegistryRequest, can_answer: bool) -> RegistryError | None:
        """Why this must not be asked now: the failure that is rested from.

        A repository that failed, and an upstream that was only slow, are still asked for what cannot
        be had otherwise.

        :param can_answer: whether something is held that can stand in.
        """
        keys: list[object] = [_All.CONNECTION, _credentials_of(request), _limited_elsewhere(request)]
        if can_answer:
            keys += [_failure_scope(request), _All.PACE]
        apart = self._apart(request)
        rests = (self._rests.get((apart, key)) for key in keys)
        now = self._clock.seconds()
        return next((_copy_with_remaining(rest, now) for rest in rests if rest and now < rest.until), None)

    def record_failure(self, request: RegistryRequest, error: RegistryError) -> None:
        """The upstream failed so; of failures while it rests already each was asked before the first.

        A 429 names our own time from here on: so long nobody asks for the client, either.
        """
        key, now = (self._apart(request), _key(request, error)), self._clock.seconds()
        before, length = self._rests.get(key), FIRST
        if error.status == 429:
            length = _parse_retry_after(error.retry_after, now)
            error.retry_after = str(ceil(length))
        elif before is not None:
            length = before.length if now < before.until else min(LONGEST, before.length * 2)
        self._rests.put(key, _OpenCircuit(now + length, length, copy(error)), length + LONGEST)
        self._tell(self._until())

    def record_success(self, request: RegistryRequest) -> None:
        """The upstream answered."""
        everything = (_All.CONNECTION, _All.PACE)
        own = (_failure_scope(request), _credentials_of(request), _limited_elsewhere(request))
        for key in (*everything, *own):
            self._rests.drop((self._apart(request), key))
        self._tell(self._until())

    def _until(self) -> float | None:
        rests = (self._rests.get((None, key)) for key in (_All.CONNECTION, _ANONYMOUS))
        return max((rest.until for rest in rests if rest), default=None)


def _copy_with_remaining(rest: _OpenCircuit, now: float) -> RegistryError:
    """A copy: each time an exception is raised its traceback grows, and with it what is kept alive."""
    error = copy(rest.error)
    if error.status == 429:
        error.retry_after = str(ceil(rest.until - now))
    return error


def _key(request: RegistryRequest, error: RegistryError) -> object:
    if error.status == 429:
        return _limited_elsewhere(request) if error.from_other_host else _credentials_of(request)
    if not isinstance(error, Unreachable) or isinstance(error, Unreadable) or error.from_other_host:
        return _failure_scope(request)
    return _All.PACE if isinstance(error, TimedOut) else _All.CONNECTION


def _limited_elsewhere(request: RegistryRequest) -> object:
    """Who is at a limit of another server than the registry itself: a token is for one repository."""
    return _credentials_of(request), _failure_scope(request)


def _failure_scope(request: RegistryRequest) -> object:
    """What shares a failure: of one repository the manifests, the blobs, and each kind of list."""
    return type(request.target), repository_of(request.target)


def _credentials_of(request: RegistryRequest) -> object:
    return request.credentials.fingerprint() if request.credentials else _ANONYMOUS


def _parse_retry_after(retry_after: str | None, now: float) -> float:
    """Seconds.

    Source: RFC 9110, 10.2.3.
    """
    if retry_after is None:
        return LIMITED
    if retry_after.isdecimal():
        return min(LIMITED_LONGEST, float(retry_after))
    try:
        at = parsedate_to_datetime(retry_after).timestamp()
    except (ValueError, TypeError, OverflowError):
        return LIMITED
    return min(LIMITED_LONGEST, max(0.0, at - now))
