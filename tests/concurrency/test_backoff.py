"""Exponential backoff, and the circuit breaker for requests to a registry."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from dockmirror.body.bodies import CorruptContent
from dockmirror.concurrency.backoff import (
    FIRST,
    LIMITED,
    LIMITED_LONGEST,
    LONGEST,
    Backoff,
    Pause,
    RequestCircuitBreaker,
    is_outage,
)
from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import (
    BrokenOff,
    Denied,
    ManifestUnknown,
    RegistryError,
    TimedOut,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    Unreachable,
    Unreadable,
)
from dockmirror.oci.request import Blob, RegistryRequest, parse_target

from ..pullthrough.origin import user


@pytest.fixture
def clock() -> Clock:
    """Return a clock that does not stand at 0."""
    clock = Clock()
    clock.advance(10_000)
    return clock


@pytest.fixture
def backoff(clock: Clock) -> Backoff[str, str]:
    """Return one with pauses of 1, 2, 4 and at most 5 seconds."""
    return Backoff(clock, 1.0, 5.0)


@pytest.mark.parametrize(
    ("longest", "factor", "pauses"), [(5.0, 2.0, [1, 2, 4, 5, 5]), (100.0, 8.0, [1, 8, 64, 100, 100])]
)
def test_pauses_grow_to_the_longest(clock: Clock, longest: float, factor: float, pauses: list[float]) -> None:
    """Each failure after a pause multiplies it by the factor."""
    backoff: Backoff[str, None] = Backoff(clock, 1.0, longest, factor)
    for pause in pauses:
        assert backoff.record_failure("a", None) == pause
        clock.advance(pause)
        assert backoff.current_pause("a") is None


def test_a_pause_has_a_key_and_a_reason(clock: Clock, backoff: Backoff[str, str]) -> None:
    """One key's failure does not pause another; the reason is kept as long as the pause."""
    backoff.record_failure("a", "down")
    assert backoff.current_pause("a") == Pause(clock.seconds() + 1, 1.0, "down")
    assert backoff.current_pause("b") is None


def test_failures_during_a_pause_do_not_lengthen_it(clock: Clock, backoff: Backoff[str, str]) -> None:
    """They restart it, since each was attempted before the pause began."""
    backoff.record_failure("a", "down")
    clock.advance(0.5)
    assert backoff.record_failure("a", "still down") == 1
    clock.advance(0.75)
    assert backoff.current_pause("a") is not None
    clock.advance(0.25)
    assert backoff.current_pause("a") is None


@pytest.mark.parametrize("seconds", [None, 1.0 + 5.0])
def test_success_starts_over(clock: Clock, backoff: Backoff[str, str], seconds: float | None) -> None:
    """So does the longest pause after the last one without a failure."""
    backoff.record_failure("a", "down")
    if seconds is None:
        backoff.record_success("a")
    else:
        clock.advance(seconds)
    assert backoff.current_pause("a") is None
    assert backoff.record_failure("a", "down") == 1


def test_the_other_side_may_name_the_length(clock: Clock, backoff: Backoff[str, str]) -> None:
    """Even above the longest."""
    assert backoff.record_failure("a", "429", seconds=60.0) == 60
    clock.advance(59)
    assert backoff.current_pause("a") is not None


def test_a_pause_from_the_future_is_over(backoff: Backoff[str, str], clock: Clock) -> None:
    """The clock was set back."""
    backoff.record_failure("a", "down")
    clock.rightNow -= 100
    assert backoff.current_pause("a") is None


def test_pauses_are_bounded(backoff: Backoff[str, str]) -> None:
    """The newest stay, however many keys fail."""
    for number in range(10_001):
        backoff.record_failure(str(number), "down")
    assert backoff.current_pause("10000") is not None
    assert backoff.current_pause("0") is None


BLOB = f"here/blobs/{Digest.of(b'')}"
TAG = "here/manifests/latest"
EVERYTHING = ["", "_catalog", TAG, BLOB, "here/tags/list", "there/manifests/latest"]


def request(path: str, username: str | None = None) -> RegistryRequest:
    credentials = None if username is None else user(username)
    return RegistryRequest(parse_target(f"/v2/{path}".encode()), credentials=credentials)


@pytest.fixture
def breaker(clock: Clock) -> RequestCircuitBreaker:
    return RequestCircuitBreaker(clock)


def allowed(
    breaker: RequestCircuitBreaker, can_answer: bool = False, username: str | None = None
) -> list[str]:
    """Return the requests that may be sent now."""
    return [path for path in EVERYTHING if breaker.error(request(path, username), can_answer) is None]


def all_but(*paths: str) -> list[str]:
    return [path for path in EVERYTHING if path not in paths]


@pytest.mark.parametrize(
    ("error", "outage"),
    [
        *((Unreachable(), True), (TimedOut(), True), (Unavailable(), True), (TooManyRequests(), True)),
        *((RegistryError(status=status), True) for status in (429, 500, 502, 503, 504, 520)),
        *((RegistryError(status=status), False) for status in (400, 401, 403, 404, 405, 416, 451)),
        *((Unauthorized(), False), (Denied(), False), (ManifestUnknown(), False), (CorruptContent(), False)),
    ],
)
def test_outages(error: RegistryError, outage: bool) -> None:
    """An outage is an upstream that could not answer: neither a refusal nor wrong bytes."""
    assert is_outage(error) is outage


@pytest.mark.parametrize(
    ("error", "allowed_without_content", "allowed_with_content", "concerns_all"),
    [
        (Unreachable("no route"), [], [], True),
        (TooManyRequests(), [], [], False),
        (TooManyRequests(from_other_host=True), all_but(TAG), all_but(TAG), False),
        (TimedOut(), EVERYTHING, [], True),
        (RegistryError(status=500), EVERYTHING, all_but(TAG), True),
        (Unavailable(), EVERYTHING, all_but(TAG), True),
        (BrokenOff(), EVERYTHING, all_but(TAG), True),
        (Unreadable(), EVERYTHING, all_but(TAG), True),
        (Unreachable(from_other_host=True), EVERYTHING, all_but(TAG), True),
        (TimedOut(from_other_host=True), EVERYTHING, all_but(TAG), True),
    ],
    ids=repr,
)
def test_a_failure_opens_the_circuit_that_it_concerns(
    clock: Clock,
    error: RegistryError,
    allowed_without_content: list[str],
    allowed_with_content: list[str],
    concerns_all: bool,
) -> None:
    """The registry, the credentials or the repository, until a pause ends; a success ends all but a 429's."""
    for ending in ("pause", "success"):
        breaker = RequestCircuitBreaker(clock)
        breaker.record_failure(request(TAG, "alice"), error)
        current = breaker.error(request(TAG, "alice"), True)
        assert (type(current), str(current)) == (type(error), str(error))
        for username in ("alice", "bob", None):
            is_concerned = concerns_all or username == "alice"
            without_content = allowed_without_content if is_concerned else EVERYTHING
            with_content = allowed_with_content if is_concerned else EVERYTHING
            assert allowed(breaker, False, username) == without_content
            assert allowed(breaker, True, username) == with_content
        if ending == "pause":
            clock.advance(max(FIRST, LIMITED))
        else:
            breaker.record_success(request(TAG, "alice"))
            if error.status == 429:  # the answer is that to a request from before
                assert allowed(breaker, False, "alice") == allowed_without_content
                continue
        assert allowed(breaker, True, "alice") == allowed(breaker, True) == EVERYTHING


@pytest.mark.parametrize("path", ["", "_catalog", BLOB])
def test_a_failure_of_another_kind_of_request_concerns_nothing_else(
    breaker: RequestCircuitBreaker, path: str
) -> None:
    """A ``/v2/`` that answers 500 proves nothing about repositories."""
    breaker.record_failure(request(path), RegistryError(status=500))
    assert allowed(breaker) == EVERYTHING
    assert allowed(breaker, True) == all_but(path)


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        *((None, LIMITED), ("0", 0), ("7", 7), ("600", 600), ("999999999999", LIMITED_LONGEST)),
        *(("9" * 400, LIMITED_LONGEST), ("soon", LIMITED), ("-5", LIMITED), ("1.5", LIMITED), ("", LIMITED)),
        *(("Thu, 01 Jan 1970 03:00:00 GMT", 800), ("Thu, 01 Jan 1970 00:00:00 GMT", 0)),
        *(("Thu Jan  1 03:00:00 1970", 800), ("Thu, 01 Jan 1970 03:00:00 -0000", 800)),
        *(("Fri, 01 Jan 2100 00:00:00 GMT", LIMITED_LONGEST), ("Thu, 99 Jan 1970 03:00:00 GMT", LIMITED)),
    ],
)
def test_retry_after_is_honoured(
    breaker: RequestCircuitBreaker, clock: Clock, retry_after: str | None, seconds: float
) -> None:
    """Seconds or a date; up to an hour.  Later clients are told how much of it is left."""
    error = TooManyRequests(retry_after=retry_after)
    breaker.record_failure(request(TAG), error)
    assert error.retry_after == f"{seconds:.0f}", "the first client is told, too"
    if seconds:
        for passed, left in ((0.0, f"{seconds:.0f}"), (seconds - 0.5, "1")):
            clock.advance(passed)
            current = breaker.error(request(TAG), False)
            assert current is not None
            assert (current.status, current.retry_after) == (429, left)
        clock.advance(0.5)
    assert breaker.error(request(TAG), True) is None


def test_each_failure_doubles_the_pause(breaker: RequestCircuitBreaker, clock: Clock) -> None:
    """It is at most a minute, and short again after a long time; failures during a pause count once."""
    pauses = []
    for _ in range(6):
        for _ in range(3):
            breaker.record_failure(request(TAG), Unreachable())
        start = clock.seconds()
        while breaker.error(request(TAG), True) is not None:
            clock.advance(5)
        pauses.append(clock.seconds() - start)
    assert pauses == [FIRST, 2 * FIRST, 4 * FIRST, 8 * FIRST, LONGEST, LONGEST]
    clock.advance(2 * LONGEST)
    breaker.record_failure(request(TAG), Unreachable())
    clock.advance(FIRST)
    assert breaker.error(request(TAG), True) is None


def test_an_answer_to_another_client_closes_shared_circuits(breaker: RequestCircuitBreaker) -> None:
    """Another client's limit and another repository's failure stay."""
    breaker.record_failure(request(TAG, "alice"), TooManyRequests())
    breaker.record_failure(request(TAG, "bob"), RegistryError(status=500))
    breaker.record_failure(request(TAG, "bob"), Unreachable())
    breaker.record_success(request("there/manifests/latest", "bob"))
    assert allowed(breaker, False, "alice") == []
    assert allowed(breaker, True, "bob") == all_but(TAG)


def test_each_error_is_a_copy(breaker: RequestCircuitBreaker) -> None:
    """An exception raised repeatedly would keep its tracebacks alive."""
    breaker.record_failure(request(TAG), Unreachable())
    for _ in range(2):
        error = breaker.error(request(TAG), True)
        assert error is not None
        assert error.__traceback__ is None
        with pytest.raises(Unreachable):
            raise error


def _isolate(request: RegistryRequest) -> object:
    return request.target if isinstance(request.target, Blob) else None


def test_isolated_requests_have_their_own_circuits(clock: Clock) -> None:
    """All others share theirs."""
    breaker = RequestCircuitBreaker(clock, _isolate)
    for failed, left in ((BLOB, all_but(BLOB)), (TAG, [])):
        breaker.record_failure(request(failed), Unreachable())
        assert allowed(breaker) == left
    breaker.record_success(request(TAG))
    assert allowed(breaker) == all_but(BLOB)
    breaker.record_success(request(BLOB))
    assert allowed(breaker) == EVERYTHING


def test_the_end_of_the_shared_pause_is_reported(clock: Clock) -> None:
    """Pauses of one client or one repository are not."""
    reports: list[float | None] = []
    breaker = RequestCircuitBreaker(clock, _isolate, reports.append)
    now = clock.seconds()
    breaker.record_failure(request(TAG), RegistryError(status=500))
    breaker.record_failure(request(TAG, "alice"), TooManyRequests())
    breaker.record_failure(request(BLOB), TooManyRequests())
    assert reports == [None, None, None]
    breaker.record_failure(request(TAG), TooManyRequests(retry_after="90"))
    breaker.record_failure(request(TAG), Unreachable())
    breaker.record_success(request(TAG, "alice"))
    clock.advance(90)
    breaker.record_success(request(TAG))
    assert reports[3:] == [now + 90, now + 90, now + 90, None]
