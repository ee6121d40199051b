"""Tokens of the mirror's own."""

from __future__ import annotations

from typing import Any

import jwt
import pytest
from twisted.internet.task import Clock

from dockmirror.users.user_tokens import LIFE, UserTokens

KEY, OLD = b"k" * 32, b"o" * 32
NOW = 1_800_000_000
GOOD = {"sub": "alice", "exp": NOW + 60}
TYPE = {"typ": "dockmirror-access"}


@pytest.fixture
def clock() -> Clock:
    """In the year 2027."""
    clock = Clock()
    clock.advance(NOW)
    return clock


def test_a_token(clock: Clock) -> None:
    """Is its name's, until its time is over."""
    tokens = UserTokens([KEY], clock)
    token = tokens.issue("alice")
    assert tokens.verify(token) == "alice"
    clock.advance(LIFE - 1)
    assert tokens.verify(token) == "alice"
    clock.advance(1)
    assert tokens.verify(token) is None


def test_of_several_keys(clock: Clock) -> None:
    """The first one signs, all are believed."""
    old = UserTokens([OLD], clock).issue("alice")
    both = UserTokens([KEY, OLD], clock)
    assert both.verify(old) == "alice"
    assert UserTokens([KEY], clock).verify(both.issue("bob")) == "bob"
    assert UserTokens([KEY], clock).verify(old) is None


def test_it_can_be_made_by_hand(clock: Clock) -> None:
    """So what is refused below is refused for its one difference."""
    assert UserTokens([KEY], clock).verify(jwt.encode(GOOD, KEY, "HS256", TYPE)) == "alice"


@pytest.mark.parametrize(
    ("claims", "key", "algorithm", "headers"),
    [
        (GOOD, OLD, "HS256", TYPE),
        (GOOD, "k" * 64, "HS512", TYPE),
        (GOOD, b"k" * 48, "HS384", TYPE),
        (GOOD, "", "none", TYPE),
        (GOOD, KEY, "HS256", {}),
        (GOOD, KEY, "HS256", {"typ": "JWT"}),
        ({"sub": "alice"}, KEY, "HS256", TYPE),
        ({"exp": NOW + 60}, KEY, "HS256", TYPE),
        ({**GOOD, "exp": NOW}, KEY, "HS256", TYPE),
        ({**GOOD, "exp": "later"}, KEY, "HS256", TYPE),
        ({**GOOD, "nbf": NOW + 10**9}, KEY, "HS256", TYPE),
    ],
)
def test_what_is_none(
    clock: Clock, claims: dict[str, Any], key: Any, algorithm: str, headers: dict[str, str]
) -> None:
    """Signed by another key or in another way, of another kind, without an end, or at its end."""
    assert UserTokens([KEY], clock).verify(jwt.encode(claims, key, algorithm, headers)) is None


@pytest.mark.parametrize("token", ["", "anonymous", "a.b.c", "\xff", "..", "e30.e30."])
def test_what_is_no_token_at_all(clock: Clock, token: str) -> None:
    """As clients may bring anything."""
    assert UserTokens([KEY], clock).verify(token) is None
