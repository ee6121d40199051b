"""Credential helpers, fixed accounts and the pauses after refusals."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from dockmirror.interfaces import IAccount
from dockmirror.middleware.token_registry import (
    FIRST_PAUSE,
    LOGIN_TTL,
    LONGEST_PAUSE,
    RETRY_AFTER,
    CredentialHelper,
    FixedAccount,
    LoginAttempts,
    parse_login,
)
from dockmirror.oci.errors import Unavailable
from dockmirror.oci.token import Credentials, Login, Scope, pull_scope
from dockmirror.system.external_program import ProcessFailed, ProcessResult
from tests.accounts import Changing
from tests.stacks import Outcome, logged, now

SECRET = "s3cret"  # noqa: S105


def output(secret: str = SECRET, name: str = "AWS") -> ProcessResult:
    """Return a helper's output."""
    fields = {"ServerURL": "registry.example", "Username": name, "Secret": secret}
    return ProcessResult(0, json.dumps(fields).encode())


LOGIN = Login(Credentials.basic("AWS", "s3cret"))
RUBBISH = [
    ProcessResult(1, b"credentials not found in native keychain"),
    ProcessResult(None, b"s3cret"),
    *(
        ProcessResult(0, text)
        for text in (b"", b"s3cret", b"[]", b"null", b'"s3cret"', b"{}", b"\xff", b"[" * 60_000)
    ),
    ProcessResult(0, b'{"Username": "AWS"}'),
    ProcessResult(0, b'{"Username": 1, "Secret": "s3cret"}'),
    ProcessResult(0, b'{"Username": "AWS", "Secret": null}'),
    *(output("s3cret", name) for name in ("", "A:B", "A\nB")),
    *(output(secret) for secret in ("", "s3cret\ud800")),
    output("s3cret\r\nHost: x", "<token>"),
]


class Helper:
    """A credential helper that ends in these ways in turn, the last one again and again, and its account.

    :ivar inputs: the bytes that it was sent.
    """

    def __init__(self, *ends: ProcessResult | ProcessFailed | Deferred[ProcessResult]) -> None:
        self.inputs: list[bytes] = []
        self.clock = Clock()
        self.account = CredentialHelper("ecr", "registry.example", self._run, self.clock)
        self._ends = list(ends)

    async def _run(self, data: bytes) -> ProcessResult:
        self.inputs.append(data)
        end = self._ends.pop(0) if len(self._ends) > 1 else self._ends[0]
        if isinstance(end, ProcessFailed):
            raise end
        return await end if isinstance(end, Deferred) else end

    def login(self) -> Login:
        return now(self.account.login())


def test_a_login_is_cached_for_a_while() -> None:
    """Then the helper runs again; it is sent the server's address.  Its user name marks an identity token."""
    assert parse_login(output("r3fresh", "<token>")) == Login(None, "r3fresh")
    helper = Helper(output(), output("n3w"))
    assert verifyObject(IAccount, helper.account)
    for seconds, secret, runs in ((0, "s3cret", 1), (LOGIN_TTL - 1, "s3cret", 1), (1, "n3w", 2)):
        helper.clock.advance(seconds)
        assert helper.login() == Login(Credentials.basic("AWS", secret))
        assert helper.inputs == [b"registry.example"] * runs


def test_a_refused_login_is_forgotten() -> None:
    """A newer one stays: the refusal was not of it."""
    helper = Helper(output(), output("n3w"), output("never"))
    for _ in range(3):
        helper.login()
        helper.account.forget(LOGIN)
        assert helper.login() == Login(Credentials.basic("AWS", "n3w"))
    assert len(helper.inputs) == 2


def test_many_wait_for_one_process() -> None:
    end: Deferred[ProcessResult] = Deferred()
    helper = Helper(end)
    waiting = [Outcome(helper.account.login()) for _ in range(3)]
    assert len(helper.inputs) == 1
    end.callback(output())
    assert [each.get() for each in waiting] == [LOGIN] * 3


@pytest.mark.parametrize("end", [*RUBBISH, ProcessFailed("did not end within 30 s")], ids=repr)
def test_an_invalid_output_is_a_failure(end: ProcessResult | ProcessFailed) -> None:
    """It is logged once without the output; the helper does not run again for a minute."""
    helper = Helper(end, output())
    with logged() as lines:
        for seconds in (0, RETRY_AFTER - 1):
            helper.clock.advance(seconds)
            with pytest.raises(Unavailable, match="credential helper for ecr provides no login") as raised:
                helper.login()
            assert "s3cret" not in str(raised.value)
    assert (len(lines), len(helper.inputs)) == (1, 1)
    assert "the credential helper of ecr provides no login for registry.example: it " in lines[0]
    assert "s3cret" not in lines[0]
    assert "keychain" not in lines[0]
    helper.clock.advance(1)
    assert helper.login() == LOGIN


@given(st.binary() | st.dictionaries(st.text(), st.text()).map(lambda fields: json.dumps(fields).encode()))
def test_any_output_is_a_login_or_a_failure(output: bytes) -> None:
    try:
        login = parse_login(ProcessResult(0, output))
    except ProcessFailed:
        return
    assert login != Login()


SCOPE, OTHER = pull_scope("team/app"), pull_scope("team/other")
OLD, NEW = Login(Credentials.basic("alice", "0ld")), Login(Credentials.basic("alice", "n3w"))


@pytest.fixture
def clock() -> Clock:
    return Clock()


def tried(logins: LoginAttempts, limit: int = 9, scope: Scope = SCOPE) -> list[Login]:
    """Return the logins to try; the last of so many is accepted."""

    async def collect() -> list[Login]:
        collected: list[Login] = []
        async for login in logins.iterate_logins(scope):
            collected.append(login)
            if len(collected) == limit:
                break
        return collected

    return now(collect())


def test_accepted_logins_are_not_paused(clock: Clock) -> None:
    """Neither are anonymous requests."""
    assert verifyObject(IAccount, FixedAccount(OLD))
    logins = LoginAttempts(FixedAccount(OLD), clock)
    assert [tried(logins, 1) for _ in range(3)] == [[OLD]] * 3
    logins = LoginAttempts(None, clock)
    with logged() as lines:
        assert [tried(logins) for _ in range(3)] == [[Login()]] * 3
    assert lines == []


def test_a_changed_login_is_tried_once(clock: Clock) -> None:
    account = Changing(OLD, NEW)
    assert verifyObject(IAccount, account)
    logins = LoginAttempts(account, clock)
    assert tried(logins, 2) == [OLD, NEW]
    assert tried(logins, 1) == [NEW]
    assert account.asked == 3


def test_pauses_grow(clock: Clock) -> None:
    """They last from a minute to ten, for one scope; the account is not asked for a login meanwhile."""
    account = Changing(OLD, NEW)
    logins = LoginAttempts(account, clock)
    assert tried(logins) == [OLD, NEW]
    assert tried(logins, 1, OTHER) == [NEW]
    for pause in (FIRST_PAUSE, 120, 240, 480, LONGEST_PAUSE, LONGEST_PAUSE):
        asked = account.asked
        clock.advance(pause - 0.1)
        assert (tried(logins), account.asked) == ([], asked)
        clock.advance(0.1)
        assert tried(logins) == [NEW]
    logins.mark_accepted(SCOPE)
    for _ in range(2):
        assert tried(logins) == [NEW]
        clock.advance(FIRST_PAUSE)


def test_each_refusal_is_reported(clock: Clock) -> None:
    """The first one, and the first after a success, are marked."""
    reports: list[tuple[Scope, bool]] = []
    logins = LoginAttempts(FixedAccount(OLD), clock, lambda *report: reports.append(report))
    for _ in range(3):
        tried(logins)
        clock.advance(LONGEST_PAUSE)
    logins.mark_accepted(SCOPE)
    tried(logins)
    assert reports == [(SCOPE, True), (SCOPE, False), (SCOPE, False), (SCOPE, True)]
