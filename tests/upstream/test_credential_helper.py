"""A credential helper's answers: taken, kept for a while, and never shown."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from dockmirror.interfaces import IAccount
from dockmirror.oci.credentials import Credentials
from dockmirror.oci.errors import Unavailable
from dockmirror.oci.token import Login
from dockmirror.system.external_program import ProcessFailed, ProcessResult
from dockmirror.upstream.credential_helper import KEPT, REST, CredentialHelper, login_of
from tests.stacks import Outcome, logged, now

GIVEN = "s3cret"


def written(secret: str = GIVEN, name: str = "AWS") -> ProcessResult:
    """An answer."""
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
    *(written("s3cret", name) for name in ("", "A:B", "A\nB")),
    *(written(secret) for secret in ("", "s3cret\ud800")),
    written("s3cret\r\nHost: x", "<token>"),
]


class Program:
    """Gives these in turn, the last again and again."""

    def __init__(self, *ends: ProcessResult | ProcessFailed | Deferred[ProcessResult]) -> None:
        self.asked: list[bytes] = []
        self._ends = list(ends)

    async def __call__(self, said: bytes) -> ProcessResult:
        """Runs."""
        self.asked.append(said)
        end = self._ends.pop(0) if len(self._ends) > 1 else self._ends[0]
        if isinstance(end, ProcessFailed):
            raise end
        return await end if isinstance(end, Deferred) else end


@pytest.fixture
def clock() -> Clock:
    """By which it is asked again."""
    return Clock()


def helper(clock: Clock, program: Program) -> CredentialHelper:
    """What asks that program."""
    return CredentialHelper("ecr", "registry.example", program, clock)


def test_it_is_an_account(clock: Clock) -> None:
    """Of the mirror's."""
    assert verifyObject(IAccount, helper(clock, Program(written())))


def test_a_name_and_a_secret(clock: Clock) -> None:
    """Given for the server whose address it is told."""
    program = Program(written())
    assert now(helper(clock, program).login()) == LOGIN
    assert program.asked == [b"registry.example"]


def test_an_identity_token() -> None:
    """Is known by the name that goes with it."""
    assert login_of(written("r3fresh", "<token>")) == Login(None, "r3fresh")


def test_it_is_kept_for_a_while(clock: Clock) -> None:
    """Then the program is asked again."""
    program = Program(written(), written("n3w"))
    account = helper(clock, program)
    for seconds, secret in ((0, "s3cret"), (KEPT - 1, "s3cret"), (1, "n3w")):
        clock.advance(seconds)
        assert now(account.login()) == Login(Credentials.basic("AWS", secret))


def test_one_that_was_refused_is_given_no_more(clock: Clock) -> None:
    """But a newer one is, of which somebody else's refusal says nothing."""
    program = Program(written(), written("n3w"), written("never"))
    account = helper(clock, program)
    for _ in range(3):
        now(account.login())
        account.refused(LOGIN)
        assert now(account.login()) == Login(Credentials.basic("AWS", "n3w"))
    assert len(program.asked) == 2


def test_many_wait_for_one_process(clock: Clock) -> None:
    """And are given the same."""
    end: Deferred[ProcessResult] = Deferred()
    program = Program(end)
    account = helper(clock, program)
    waiting = [Outcome(account.login()) for _ in range(3)]
    assert len(program.asked) == 1
    end.callback(written())
    assert [each.get() for each in waiting] == [LOGIN] * 3


@pytest.mark.parametrize("end", [*RUBBISH, ProcessFailed("did not end within 30 s")], ids=repr)
def test_what_is_no_login(clock: Clock, end: ProcessResult | ProcessFailed) -> None:
    """Is a failure, told once without what was written; the program is left alone for a minute."""
    program = Program(end, written())
    account = helper(clock, program)
    with logged() as lines:
        for seconds in (0, REST - 1):
            clock.advance(seconds)
            with pytest.raises(Unavailable, match="credential helper for ecr gives it no login") as raised:
                now(account.login())
            assert "s3cret" not in str(raised.value)
    assert (len(lines), len(program.asked)) == (1, 1)
    assert "the credential helper of ecr gives nothing for registry.example: it " in lines[0]
    assert "s3cret" not in lines[0]
    assert "keychain" not in lines[0]
    clock.advance(1)
    assert now(account.login()) == LOGIN


@given(st.binary() | st.dictionaries(st.text(), st.text()).map(lambda fields: json.dumps(fields).encode()))
def test_whatever_is_written(output: bytes) -> None:
    """It is a login, or it is none."""
    try:
        login = login_of(ProcessResult(0, output))
    except ProcessFailed:
        return
    assert login != Login()
