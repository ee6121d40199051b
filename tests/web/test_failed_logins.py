"""Limits on failed logins per client network."""

from __future__ import annotations

from ipaddress import ip_network
from mmap import mmap

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from dockmirror.oci.errors import TooManyRequests, Unauthorized, Unavailable
from dockmirror.system.networks import Network
from dockmirror.web.auth import (
    FAILED_LOGINS_SIZE,
    MAX_CONCURRENT,
    MAX_PER_NAME,
    MAX_PER_NETWORK,
    WINDOW,
    FailedLogins,
)

from ..answering import watch

HERE, THERE = ip_network("192.0.2.1/32"), ip_network("2001:db8::/64")


class Attempts:
    """Logins of which the test says what comes."""

    def __init__(self) -> None:
        self.clock = Clock()
        memory = memoryview(mmap(-1, FAILED_LOGINS_SIZE))
        self.workers = [FailedLogins(memory, self.clock) for _ in range(2)]

    def __call__(
        self, outcome: object = None, name: str = "alice", network: Network | None = HERE, worker: int = 0
    ) -> object:
        """What comes of one: the outcome, or what the limit says."""
        waiting: Deferred[str] = Deferred()
        seen = watch(self.workers[worker].attempt(network, name.encode(), lambda: waiting))
        if not seen and isinstance(outcome, Exception):
            waiting.errback(outcome)
        elif not seen:
            waiting.callback(str(outcome))
        return seen[0]

    def fails(self, times: int, name: str = "alice", network: Network | None = HERE) -> None:
        """So many logins fail."""
        for _ in range(times):
            assert isinstance(self(Unauthorized(), name, network), Unauthorized)


@pytest.fixture
def attempts() -> Attempts:
    """None was made yet."""
    return Attempts()


def retry_after(outcome: object) -> str | None:
    """After how many seconds another one may be made."""
    assert isinstance(outcome, TooManyRequests)
    return outcome.retry_after


def test_wrong_passwords_of_a_name(attempts: Attempts) -> None:
    """After a few wrong passwords for one name, even the right one has to wait for the next window."""
    attempts.fails(MAX_PER_NAME - 1)
    attempts.clock.advance(20)
    attempts.fails(1)
    assert retry_after(attempts("alice")) == "40"
    attempts.clock.advance(39.5)
    assert retry_after(attempts("alice")) == "1"
    attempts.clock.advance(0.5)
    attempts.fails(MAX_PER_NAME)
    assert retry_after(attempts("alice")) == f"{WINDOW:g}"


def test_other_names_and_other_networks(attempts: Attempts) -> None:
    """Other names and other networks are not affected."""
    attempts.fails(MAX_PER_NAME)
    assert attempts("bob", name="bob") == "bob"
    for other in (THERE, None):
        assert attempts("alice", network=other) == "alice"
    attempts.fails(MAX_PER_NAME, network=None)
    assert retry_after(attempts("alice", network=None))


def test_wrong_passwords_of_many_names(attempts: Attempts) -> None:
    """Trying one password for many names is limited as well."""
    for number in range(MAX_PER_NETWORK):
        attempts.fails(1, name=f"name {number}")
    assert retry_after(attempts("bob", name="bob"))
    assert attempts("bob", name="bob", network=THERE) == "bob"


def test_what_succeeds_is_not_counted(attempts: Attempts) -> None:
    """Successful logins do not count, nor do those that could not be checked."""
    for _ in range(2 * MAX_PER_NETWORK):
        assert attempts("alice") == "alice"
    for _ in range(2 * MAX_PER_NETWORK):
        assert isinstance(attempts(Unavailable()), Unavailable)
    attempts.fails(MAX_PER_NAME)


def test_processes_that_serve_as_one(attempts: Attempts) -> None:
    """Count together."""
    attempts.fails(MAX_PER_NAME)
    assert retry_after(attempts("alice", worker=1))


def test_many_at_once(attempts: Attempts) -> None:
    """Count as failed until they have succeeded, and are few for a network; others' are looked at."""
    waiting: Deferred[str] = Deferred()
    (guesses, _) = attempts.workers
    of_one = [watch(guesses.attempt(HERE, b"alice", lambda: waiting)) for _ in range(MAX_PER_NAME + 1)]
    assert [len(each) for each in of_one] == [0] * MAX_PER_NAME + [1]
    assert retry_after(of_one[-1][0])
    of_many = [watch(guesses.attempt(HERE, b"%d" % n, lambda: waiting)) for n in range(MAX_CONCURRENT)]
    assert sum(not each for each in of_many) == MAX_CONCURRENT - MAX_PER_NAME
    assert retry_after(of_many[-1][0]) == "1"
    assert attempts("carol", name="carol", network=THERE) == "carol"
    waiting.callback("right")
    assert attempts("alice") == "alice"


def test_one_that_leaves(attempts: Attempts) -> None:
    """A client that leaves during the check does not count as failed."""
    for _ in range(MAX_PER_NAME + 1):
        attempt = Deferred.fromCoroutine(attempts.workers[0].attempt(HERE, b"alice", _without_end))
        attempt.addErrback(lambda _: None)
        attempt.cancel()
    assert attempts("alice") == "alice"


def _without_end() -> Deferred[str]:
    return Deferred()
