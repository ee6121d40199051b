"""The circuit breaker for requests to a registry."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from dockmirror.body.verified import CorruptContent
from dockmirror.concurrency.backoff import (
    FIRST,
    LIMITED,
    LIMITED_LONGEST,
    LONGEST,
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
from dockmirror.oci.request import RegistryRequest, parse_target

from ..pullthrough.origin import user

BLOB = f"here/blobs/{Digest.of(b'')}"
TAG = "here/manifests/latest"
EVERYTHING = ["", "_catalog", TAG, BLOB, "here/tags/list", "there/manifests/latest"]


def asked(path: str, who: str | None = None, head: bool = False) -> RegistryRequest:
    """A request."""
    credentials = None if who is None else user(who)
    return RegistryRequest(parse_target(f"/v2/{path}".encode()), credentials=credentials, head=head)


@pytest.fixture
def clock() -> Clock:
    """Not at its very beginning."""
    clock = Clock()
    clock.advance(10_000)
    return clock


@pytest.fixture
def resting(clock: Clock) -> RequestCircuitBreaker:
    """Nothing has failed yet."""
    return RequestCircuitBreaker(clock)


def let_through(
    resting: RequestCircuitBreaker, can_answer: bool = False, who: str | None = None
) -> list[str]:
    """Return the requests that may be sent now."""
    return [path for path in EVERYTHING if resting.error(asked(path, who), can_answer) is None]


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


def test_a_failed_connection_opens_the_circuit_for_all(resting: RequestCircuitBreaker, clock: Clock) -> None:
    """For everybody, whatever they ask for, whether anything is held or not."""
    error = Unreachable("no route")
    resting.record_failure(asked(TAG, "alice"), error)
    for can_answer in (False, True):
        assert let_through(resting, can_answer) == let_through(resting, can_answer, "bob") == []
    told = resting.error(asked(TAG), False)
    assert (type(told), str(told)) == (Unreachable, "no route")
    clock.advance(FIRST)
    assert let_through(resting, True) == EVERYTHING


def test_a_429_opens_the_circuit_of_the_credentials(resting: RequestCircuitBreaker, clock: Clock) -> None:
    """Everything is refused to them; others go on, and so does the mirror itself."""
    resting.record_failure(asked(TAG, "alice"), TooManyRequests())
    for can_answer in (False, True):
        assert let_through(resting, can_answer, "alice") == []
        assert let_through(resting, can_answer, "bob") == let_through(resting, can_answer) == EVERYTHING
    clock.advance(LIMITED)
    assert let_through(resting, True, "alice") == EVERYTHING


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        *((None, LIMITED), ("0", 0), ("7", 7), ("600", 600), ("999999999999", LIMITED_LONGEST)),
        *(("9" * 400, LIMITED_LONGEST), ("soon", LIMITED), ("-5", LIMITED), ("1.5", LIMITED), ("", LIMITED)),
        *(("Thu, 01 Jan 1970 03:00:00 GMT", 800), ("Thu, 01 Jan 1970 00:00:00 GMT", 0)),
        *(("Fri, 01 Jan 2100 00:00:00 GMT", LIMITED_LONGEST), ("Thu, 99 Jan 1970 03:00:00 GMT", LIMITED)),
    ],
)
def test_retry_after_is_honoured(
    resting: RequestCircuitBreaker, clock: Clock, retry_after: str | None, seconds: float
) -> None:
    """Seconds or a date; up to an hour.  Who comes meanwhile is told how much of it is left."""
    resting.record_failure(asked(TAG), TooManyRequests(retry_after=retry_after))
    if seconds:
        for passed, left in ((0.0, f"{seconds:.0f}"), (seconds - 0.5, "1")):
            clock.advance(passed)
            told = resting.error(asked(TAG), False)
            assert told is not None
            assert (told.status, told.retry_after) == (429, left)
        clock.advance(0.5)
    assert resting.error(asked(TAG), True) is None


@pytest.mark.parametrize("error", [RegistryError(status=500), Unavailable()])
def test_a_failing_repository_is_skipped_if_content_is_held(
    resting: RequestCircuitBreaker, error: RegistryError
) -> None:
    """Its manifests here, for everybody; what cannot be had otherwise is asked for all the same."""
    resting.record_failure(asked(TAG, "alice"), error)
    rest = [path for path in EVERYTHING if path != TAG]
    assert let_through(resting, True) == let_through(resting, True, "bob") == rest
    assert let_through(resting) == EVERYTHING


@pytest.mark.parametrize("error", [BrokenOff(), Unreadable()])
def test_an_unusable_response_concerns_one_repository(
    resting: RequestCircuitBreaker, error: RegistryError
) -> None:
    """The upstream could be connected to: only its repository rests."""
    resting.record_failure(asked(TAG), error)
    assert let_through(resting) == EVERYTHING
    assert let_through(resting, can_answer=True) == [each for each in EVERYTHING if each != TAG]


@pytest.mark.parametrize("path", ["", "_catalog"])
def test_a_failing_ping_concerns_nothing_else(resting: RequestCircuitBreaker, path: str) -> None:
    """A ``/v2/`` that answers 500 proves nothing about repositories."""
    resting.record_failure(asked(path), RegistryError(status=500))
    assert let_through(resting, True) == [each for each in EVERYTHING if each != path]


def test_a_slow_upstream_is_skipped_if_content_is_held(resting: RequestCircuitBreaker) -> None:
    """Requests that nothing held can answer wait as before."""
    resting.record_failure(asked(TAG), TimedOut())
    assert let_through(resting, True) == []
    assert let_through(resting) == EVERYTHING


@pytest.mark.parametrize("path", [BLOB, TAG])
@pytest.mark.parametrize("row", [Unreachable, TimedOut, Unreadable])
def test_failures_of_other_servers_concern_one_repository(
    resting: RequestCircuitBreaker, path: str, row: type[RegistryError]
) -> None:
    """A host of blobs or a token service that is down takes nothing along but what it was asked for."""
    resting.record_failure(asked(path), row(from_other_host=True))
    assert let_through(resting) == EVERYTHING
    assert let_through(resting, True) == [each for each in EVERYTHING if each != path]


def test_a_429_of_another_server_concerns_one_repository(
    resting: RequestCircuitBreaker, clock: Clock
) -> None:
    """A token is for one repository."""
    resting.record_failure(asked(TAG, "alice"), TooManyRequests(from_other_host=True, retry_after="7"))
    for can_answer in (False, True):
        assert let_through(resting, can_answer, "alice") == [each for each in EVERYTHING if each != TAG]
        assert let_through(resting, can_answer, "bob") == EVERYTHING
    clock.advance(7)
    assert let_through(resting, True, "alice") == EVERYTHING


def test_a_429_without_retry_after_gets_one() -> None:
    """The client is told, too."""
    error = TooManyRequests()
    RequestCircuitBreaker(Clock()).record_failure(asked(TAG), error)
    assert error.retry_after == f"{LIMITED:.0f}"


def test_each_failure_doubles_the_pause(resting: RequestCircuitBreaker, clock: Clock) -> None:
    """A pause is at most a minute."""
    lengths = []
    for _ in range(6):
        resting.record_failure(asked(TAG), Unreachable())
        start = clock.seconds()
        while resting.error(asked(TAG), True) is not None:
            clock.advance(1)
        lengths.append(clock.seconds() - start)
    assert lengths == [FIRST, 2 * FIRST, 4 * FIRST, 8 * FIRST, LONGEST, LONGEST]


def test_failures_during_a_pause_count_once(resting: RequestCircuitBreaker, clock: Clock) -> None:
    """They were sent before the first of them failed."""
    for _ in range(100):
        resting.record_failure(asked(TAG), Unreachable())
    clock.advance(FIRST)
    assert resting.error(asked(TAG), True) is None


def test_an_old_failure_is_forgotten(resting: RequestCircuitBreaker, clock: Clock) -> None:
    """The next pause is the shortest again."""
    for _ in range(5):
        resting.record_failure(asked(TAG), Unreachable())
        clock.advance(LONGEST)
    clock.advance(2 * LONGEST)
    resting.record_failure(asked(TAG), Unreachable())
    clock.advance(FIRST)
    assert resting.error(asked(TAG), True) is None


@pytest.mark.parametrize("error", [Unreachable(), TimedOut(), TooManyRequests(), RegistryError(status=500)])
def test_an_answer_closes_the_circuits(resting: RequestCircuitBreaker, error: RegistryError) -> None:
    """The circuits of the upstream, the credentials and the repository."""
    resting.record_failure(asked(TAG, "alice"), error)
    resting.record_success(asked(TAG, "alice"))
    assert let_through(resting, True, "alice") == EVERYTHING


def test_an_answer_to_another_client_closes_shared_circuits(resting: RequestCircuitBreaker) -> None:
    """Another client's limit and another repository's failure stay."""
    resting.record_failure(asked(TAG, "alice"), TooManyRequests())
    resting.record_failure(asked(TAG, "bob"), RegistryError(status=500))
    resting.record_failure(asked(TAG, "bob"), Unreachable())
    resting.record_success(asked("there/manifests/latest", "bob"))
    assert let_through(resting, False, "alice") == []
    assert let_through(resting, True, "bob") == [path for path in EVERYTHING if path != TAG]


def test_a_clock_set_back_prolongs_no_pause(resting: RequestCircuitBreaker, clock: Clock) -> None:
    """A pause that begins in the future is over."""
    resting.record_failure(asked(TAG), Unreachable())
    clock.rightNow -= 3600
    assert let_through(resting, True) == EVERYTHING


def test_each_error_is_a_copy(resting: RequestCircuitBreaker) -> None:
    """An exception raised repeatedly would keep its tracebacks alive."""
    resting.record_failure(asked(TAG), Unreachable())
    for _ in range(2):
        told = resting.error(asked(TAG), True)
        assert told is not None
        with pytest.raises(Unreachable):
            raise told
    again = resting.error(asked(TAG), True)
    assert again is not None
    assert again.__traceback__ is None


def test_circuits_are_bounded(resting: RequestCircuitBreaker) -> None:
    """The newest stay open, however many credentials and repositories fail."""
    for number in range(20_000):
        resting.record_failure(asked(f"r{number}/manifests/x"), RegistryError(status=500))
    assert resting.error(asked("r19999/manifests/x"), True) is not None
    assert resting.error(asked("r0/manifests/x"), True) is None


def test_isolated_requests_have_their_own_circuits(clock: Clock) -> None:
    """All others share theirs."""
    resting = RequestCircuitBreaker(
        clock, lambda request: request.target if request.target == asked(BLOB).target else None
    )
    for failed, left in ((BLOB, [path for path in EVERYTHING if path != BLOB]), (TAG, [])):
        resting.record_failure(asked(failed), TooManyRequests())
        assert let_through(resting) == left
    resting.record_success(asked(TAG))
    assert let_through(resting) == [path for path in EVERYTHING if path != BLOB]
    resting.record_success(asked(BLOB))
    assert let_through(resting) == EVERYTHING


def test_the_end_of_the_shared_pause_is_reported(clock: Clock) -> None:
    """Pauses of one client or one repository are not."""
    told: list[float | None] = []
    resting = RequestCircuitBreaker(
        clock, lambda request: request.target if request.target == asked(BLOB).target else None, told.append
    )
    now = clock.seconds()
    resting.record_failure(asked(TAG), RegistryError(status=500))
    resting.record_failure(asked(TAG, "alice"), TooManyRequests())
    resting.record_failure(asked(BLOB), TooManyRequests())
    assert told == [None, None, None]
    resting.record_failure(asked(TAG), TooManyRequests(retry_after="90"))
    resting.record_failure(asked(TAG), Unreachable())
    resting.record_success(asked(TAG, "alice"))
    resting.record_success(asked(TAG))
    assert told[3:] == [now + 90, now + 90, now + 90, None]
