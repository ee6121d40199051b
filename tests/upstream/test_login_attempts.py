"""The logins of an account, one after another, and the pauses when none is taken."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from dockmirror.interfaces import IAccount
from dockmirror.oci.credentials import Credentials
from dockmirror.oci.scope import Scope, pull_scope
from dockmirror.oci.token import Login
from dockmirror.upstream.login_attempts import FIRST, LONGEST, FixedAccount, LoginAttempts
from tests.accounts import Changing
from tests.stacks import logged, now

SCOPE, OTHER = pull_scope("team/app"), pull_scope("team/other")
OLD, NEW = Login(Credentials.basic("alice", "0ld")), Login(Credentials.basic("alice", "n3w"))


@pytest.fixture
def clock() -> Clock:
    """By which pauses end."""
    clock = Clock()
    clock.advance(1_000_000)
    return clock


async def _all(logins: LoginAttempts, most: int, scope: Scope) -> list[Login]:
    tried: list[Login] = []
    async for login in logins.each(scope):
        tried.append(login)
        if len(tried) == most:
            break
    return tried


def tried(logins: LoginAttempts, most: int = 9, scope: Scope = SCOPE) -> list[Login]:
    """Those that are given, where the last of so many is taken."""
    return now(_all(logins, most, scope))


def test_accounts() -> None:
    """Are what the interface says."""
    assert verifyObject(IAccount, FixedAccount(OLD))
    assert verifyObject(IAccount, Changing(OLD, NEW))


def test_anybody_is_never_paused(clock: Clock) -> None:
    """There is nothing that could be locked."""
    logins = LoginAttempts(None, clock)
    with logged() as lines:
        assert [tried(logins) for _ in range(3)] == [[Login()]] * 3
    assert lines == []


def test_one_that_is_taken_is_taken_again(clock: Clock) -> None:
    """Nothing pauses."""
    logins = LoginAttempts(FixedAccount(OLD), clock)
    assert [tried(logins, 1) for _ in range(3)] == [[OLD]] * 3


def test_another_login_is_tried(clock: Clock) -> None:
    """Once, where the account has another."""
    account = Changing(OLD, NEW)
    logins = LoginAttempts(account, clock)
    assert tried(logins, 2) == [OLD, NEW]
    assert tried(logins, 1) == [NEW]
    assert account.asked == 3


def test_pauses_grow(clock: Clock) -> None:
    """From a minute to ten, and nobody is asked for a login meanwhile."""
    account = Changing(OLD, NEW)
    logins = LoginAttempts(account, clock)
    assert tried(logins) == [OLD, NEW]
    for pause in (FIRST, 120, 240, 480, LONGEST, LONGEST):
        asked = account.asked
        clock.advance(pause - 0.1)
        assert (tried(logins), account.asked) == ([], asked)
        clock.advance(0.1)
        assert tried(logins) == [NEW]


def test_a_pause_is_of_one_scope(clock: Clock) -> None:
    """What is given of one repository says nothing of another."""
    logins = LoginAttempts(FixedAccount(OLD), clock)
    tried(logins)
    assert tried(logins) == []
    assert tried(logins, scope=OTHER) == [OLD]


def test_the_log_tells_of_a_refusal_once(clock: Clock) -> None:
    """However often it is repeated, until the account was taken again; and never of the secret."""
    logins = LoginAttempts(FixedAccount(OLD), clock)
    with logged() as lines:
        for _ in range(3):
            tried(logins)
            clock.advance(LONGEST)
        assert len(lines) == 1
        logins.accepted(SCOPE)
        tried(logins)
    assert len(lines) == 2
    assert all("credentials were refused for repository:team/app:pull" in line for line in lines)
    assert not any("0ld" in line or str(OLD.credentials and OLD.credentials.header) in line for line in lines)


def test_what_is_taken_again_begins_anew(clock: Clock) -> None:
    """Its next pause is a short one."""
    logins = LoginAttempts(FixedAccount(OLD), clock)
    for _ in range(2):
        tried(logins)
        clock.advance(120)
    logins.accepted(SCOPE)
    assert tried(logins) == [OLD]
    clock.advance(FIRST)
    assert tried(logins) == [OLD]
