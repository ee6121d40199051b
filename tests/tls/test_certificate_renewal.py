"""When which certificate is asked for."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from dockmirror.tls.acme_renewal import (
    CHECK_PERIOD,
    AuthorityUnavailable,
    CertificateRenewal,
    NameRefused,
)
from tests.stacks import logged

DAY = 86_400.0
PAUSES = (30.0, 240.0, 1920.0, 15_360.0, 21_600.0)
LIFE = 60 * DAY


class Asked:
    """What is due when, and an authority that does as it is told."""

    def __init__(self, *names: str) -> None:
        self.names = list(names)
        self.clock = Clock()
        self.clock.advance(1_000_000_000)
        self.due: dict[str, float] = {}
        self.asked: list[str] = []
        self.failing: dict[str, Exception] = {}
        self.slow: Deferred[None] | None = None
        self.issuing = CertificateRenewal(lambda: self.names, self.due.get, self.issue, self.clock)

    async def issue(self, name: str) -> None:
        self.asked.append(name)
        if self.slow is not None:
            await self.slow
        if name in self.failing:
            raise self.failing[name]
        self.due[name] = self.clock.seconds() + LIFE

    def within(self, seconds: float, step: float = CHECK_PERIOD) -> list[str]:
        """What is asked for in that time."""
        self.asked = []
        for _ in range(int(seconds / step)):
            self.clock.advance(step)
        return self.asked


@pytest.fixture
def asked() -> Asked:
    """Two names without a certificate."""
    return Asked("m.example", "docker.m.example")


def test_at_first(asked: Asked) -> None:
    """Every name is asked for at once, in their order, and who is missing is told."""
    with logged() as texts:
        asked.issuing.startService()
    assert asked.asked == ["m.example", "docker.m.example"]
    assert "no certificate yet for m.example, docker.m.example: https to them fails" in texts[0]
    assert any("new certificate for docker.m.example" in text for text in texts)


def test_what_is_there(asked: Asked) -> None:
    """A certificate is not requested again before it is due, not even after a restart."""
    now = asked.clock.seconds()
    asked.due.update({"m.example": now + 2 * DAY, "docker.m.example": now + DAY})
    with logged() as texts:
        asked.issuing.startService()
    assert texts == []
    assert asked.within(DAY - 60) == []
    assert asked.within(60) == ["docker.m.example"]
    assert asked.within(DAY, step=DAY) == ["m.example"]
    assert asked.within(LIFE - 2 * DAY, step=DAY) == []


def test_a_name_that_is_refused(asked: Asked) -> None:
    """A refused name is retried after longer and longer delays, and does not delay others."""
    asked.failing["m.example"] = NameRefused("it is not yours")
    with logged() as texts:
        asked.issuing.startService()
    assert asked.asked == ["m.example", "docker.m.example"]
    assert any("no certificate for m.example" in text and "30 s: it is not yours" in text for text in texts)
    for pause in PAUSES:
        assert asked.within(pause - CHECK_PERIOD) == []
        assert asked.within(CHECK_PERIOD) == ["m.example"]
    assert asked.within(PAUSES[-1] - CHECK_PERIOD) == []
    asked.failing.clear()
    assert asked.within(CHECK_PERIOD) == ["m.example"]
    assert asked.within(DAY) == []


def test_pauses_begin_anew(asked: Asked) -> None:
    """Once there has been a certificate."""
    asked.failing["m.example"] = NameRefused("no")
    asked.issuing.startService()
    asked.within(PAUSES[0] + PAUSES[1])
    asked.failing.clear()
    asked.within(PAUSES[2])
    assert asked.due["m.example"]
    asked.failing["m.example"] = NameRefused("no")
    asked.due.pop("m.example")
    assert asked.within(CHECK_PERIOD) == ["m.example"]
    assert asked.within(PAUSES[0]) == ["m.example"]


def test_an_authority_that_is_down(asked: Asked) -> None:
    """While the authority is down, one name is retried after longer and longer delays."""
    asked.failing = dict.fromkeys(asked.names, AuthorityUnavailable("connection refused"))
    with logged() as texts:
        asked.issuing.startService()
    assert asked.asked == ["m.example"]
    assert any(
        "the certificate authority is unavailable; retrying in 30 s: connection" in text for text in texts
    )
    assert asked.within(PAUSES[0]) == ["m.example"]
    assert asked.within(PAUSES[1] - CHECK_PERIOD) == []
    asked.failing.clear()
    assert asked.within(CHECK_PERIOD) == ["m.example", "docker.m.example"]


def test_an_authority_that_refuses(asked: Asked) -> None:
    """A refusal shows that the authority is up, which resets the delays of an outage."""
    asked.failing = dict.fromkeys(asked.names, AuthorityUnavailable("connection refused"))
    asked.issuing.startService()
    asked.failing["m.example"] = NameRefused("no")
    with logged() as texts:
        assert asked.within(PAUSES[0]) == ["m.example", "docker.m.example"]
    assert any(
        "the certificate authority is unavailable; retrying in 30 s: connection" in text for text in texts
    )


def test_names_may_change(asked: Asked) -> None:
    """Names may change with the settings at run time."""
    asked.issuing.startService()
    asked.names = ["m.example", "lan.m.example"]
    assert asked.within(CHECK_PERIOD) == ["lan.m.example"]


def test_one_at_a_time(asked: Asked) -> None:
    """However long it takes; the end of the mirror waits for none."""
    asked.slow = Deferred()
    asked.issuing.startService()
    assert asked.within(DAY, step=60) == []
    asked.issuing.stopService()
    assert asked.within(DAY, step=60) == []


def test_what_nobody_expected(asked: Asked) -> None:
    """An unexpected exception is logged and backs off like a refusal."""
    asked.failing["m.example"] = KeyError("newNonce")
    with logged() as texts:
        asked.issuing.startService()
    assert any(
        "no certificate for m.example" in text and "30 s" in text and "KeyError" in text for text in texts
    )
    assert asked.asked == ["m.example", "docker.m.example"]
    for pause in PAUSES[:2]:
        assert asked.within(pause - CHECK_PERIOD) == []
        assert asked.within(CHECK_PERIOD) == ["m.example"]
