"""Who is left alone after a failure, and for how long."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from dockmirror.body.verified import CorruptContent
from dockmirror.concurrency.circuit_breaker import (
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
    """What may be asked for now."""
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
def test_what_is_an_outage(error: RegistryError, outage: bool) -> None:
    """That the upstream could say nothing; not that it said no, nor that its bytes were wrong."""
    assert is_outage(error) is outage


def test_an_upstream_that_cannot_be_reached_rests_as_a_whole(
    resting: RequestCircuitBreaker, clock: Clock
) -> None:
    """For everybody, whatever they ask for, whether anything is held or not."""
    error = Unreachable("no route")
    resting.record_failure(asked(TAG, "alice"), error)
    for can_answer in (False, True):
        assert let_through(resting, can_answer) == let_through(resting, can_answer, "bob") == []
    told = resting.error(asked(TAG), False)
    assert (type(told), str(told)) == (Unreachable, "no route")
    clock.advance(FIRST)
    assert let_through(resting, True) == EVERYTHING


def test_a_limit_is_that_of_the_credentials(resting: RequestCircuitBreaker, clock: Clock) -> None:
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
def test_a_failing_repository_rests_where_something_is_held(
    resting: RequestCircuitBreaker, error: RegistryError
) -> None:
    """Its manifests here, for everybody; what cannot be had otherwise is asked for all the same."""
    resting.record_failure(asked(TAG, "alice"), error)
    rest = [path for path in EVERYTHING if path != TAG]
    assert let_through(resting, True) == let_through(resting, True, "bob") == rest
    assert let_through(resting) == EVERYTHING


@pytest.mark.parametrize("error", [BrokenOff(), Unreadable()])
def test_a_response_that_is_of_no_use_says_nothing_of_others(
    resting: RequestCircuitBreaker, error: RegistryError
) -> None:
    """The upstream could be connected to: only its repository rests."""
    resting.record_failure(asked(TAG), error)
    assert let_through(resting) == EVERYTHING
    assert let_through(resting, can_answer=True) == [each for each in EVERYTHING if each != TAG]


@pytest.mark.parametrize("path", ["", "_catalog"])
def test_what_is_no_repositorys_is_nobodys_else(resting: RequestCircuitBreaker, path: str) -> None:
    """A ``/v2/`` that answers 500 says nothing of what lies below it."""
    resting.record_failure(asked(path), RegistryError(status=500))
    assert let_through(resting, True) == [each for each in EVERYTHING if each != path]


def test_a_slow_upstream_rests_where_something_is_held(resting: RequestCircuitBreaker) -> None:
    """As a whole; who cannot have it otherwise waits as before."""
    resting.record_failure(asked(TAG), TimedOut())
    assert let_through(resting, True) == []
    assert let_through(resting) == EVERYTHING


@pytest.mark.parametrize("path", [BLOB, TAG])
@pytest.mark.parametrize("row", [Unreachable, TimedOut, Unreadable])
def test_another_server_is_not_the_registry(
    resting: RequestCircuitBreaker, path: str, row: type[RegistryError]
) -> None:
    """A host of blobs or a token service that is down takes nothing along but what it was asked for."""
    resting.record_failure(asked(path), row(from_other_host=True))
    assert let_through(resting) == EVERYTHING
    assert let_through(resting, True) == [each for each in EVERYTHING if each != path]


def test_a_limit_of_another_server(resting: RequestCircuitBreaker, clock: Clock) -> None:
    """Is that of the credentials for what they were used for: a token is for one repository."""
    resting.record_failure(asked(TAG, "alice"), TooManyRequests(from_other_host=True, retry_after="7"))
    for can_answer in (False, True):
        assert let_through(resting, can_answer, "alice") == [each for each in EVERYTHING if each != TAG]
        assert let_through(resting, can_answer, "bob") == EVERYTHING
    clock.advance(7)
    assert let_through(resting, True, "alice") == EVERYTHING


def test_a_limit_without_a_time_is_given_ours() -> None:
    """Also to the client that met with it."""
    error = TooManyRequests()
    RequestCircuitBreaker(Clock()).record_failure(asked(TAG), error)
    assert error.retry_after == f"{LIMITED:.0f}"


def test_each_failure_doubles_the_rest(resting: RequestCircuitBreaker, clock: Clock) -> None:
    """Up to a minute."""
    lengths = []
    for _ in range(6):
        resting.record_failure(asked(TAG), Unreachable())
        start = clock.seconds()
        while resting.error(asked(TAG), True) is not None:
            clock.advance(1)
        lengths.append(clock.seconds() - start)
    assert lengths == [FIRST, 2 * FIRST, 4 * FIRST, 8 * FIRST, LONGEST, LONGEST]


def test_many_that_fail_together_count_once(resting: RequestCircuitBreaker, clock: Clock) -> None:
    """They were asked before the first of them failed."""
    for _ in range(100):
        resting.record_failure(asked(TAG), Unreachable())
    clock.advance(FIRST)
    assert resting.error(asked(TAG), True) is None


def test_a_failure_of_long_ago_does_not_count(resting: RequestCircuitBreaker, clock: Clock) -> None:
    """It begins with a short rest again."""
    for _ in range(5):
        resting.record_failure(asked(TAG), Unreachable())
        clock.advance(LONGEST)
    clock.advance(2 * LONGEST)
    resting.record_failure(asked(TAG), Unreachable())
    clock.advance(FIRST)
    assert resting.error(asked(TAG), True) is None


@pytest.mark.parametrize("error", [Unreachable(), TimedOut(), TooManyRequests(), RegistryError(status=500)])
def test_an_answer_ends_it(resting: RequestCircuitBreaker, error: RegistryError) -> None:
    """Of the upstream, to the credentials, for the repository."""
    resting.record_failure(asked(TAG, "alice"), error)
    resting.record_success(asked(TAG, "alice"))
    assert let_through(resting, True, "alice") == EVERYTHING


def test_an_answer_to_another_ends_what_is_everybodys(resting: RequestCircuitBreaker) -> None:
    """But neither another's limit nor another repository's failure."""
    resting.record_failure(asked(TAG, "alice"), TooManyRequests())
    resting.record_failure(asked(TAG, "bob"), RegistryError(status=500))
    resting.record_failure(asked(TAG, "bob"), Unreachable())
    resting.record_success(asked("there/manifests/latest", "bob"))
    assert let_through(resting, False, "alice") == []
    assert let_through(resting, True, "bob") == [path for path in EVERYTHING if path != TAG]


def test_a_clock_that_is_set_back_prolongs_nothing(resting: RequestCircuitBreaker, clock: Clock) -> None:
    """A rest that begins in a time to come is over."""
    resting.record_failure(asked(TAG), Unreachable())
    clock.rightNow -= 3600
    assert let_through(resting, True) == EVERYTHING


def test_what_is_told_is_a_copy(resting: RequestCircuitBreaker) -> None:
    """An exception raised again and again would keep alive all that it has passed."""
    resting.record_failure(asked(TAG), Unreachable())
    for _ in range(2):
        told = resting.error(asked(TAG), True)
        assert told is not None
        with pytest.raises(Unreachable):
            raise told
    again = resting.error(asked(TAG), True)
    assert again is not None
    assert again.__traceback__ is None


def test_memory_is_bounded(resting: RequestCircuitBreaker) -> None:
    """However many credentials and repositories fail; the newest rest."""
    for number in range(20_000):
        resting.record_failure(asked(f"r{number}/manifests/x"), RegistryError(status=500))
    assert resting.error(asked("r19999/manifests/x"), True) is not None
    assert resting.error(asked("r0/manifests/x"), True) is None


def test_what_fails_apart_rests_apart(clock: Clock) -> None:
    """Each by itself, and all else together."""
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


def test_it_tells_of_its_rest(clock: Clock) -> None:
    """Until when it lasts for those without credentials: not what is one client's, or one repository's."""
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
