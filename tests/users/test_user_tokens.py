"""Tokens of the mirror's own."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import jwt
import pytest
from twisted.internet.task import Clock

from dockmirror.users import LIFETIME, UserTokens, read_signing_keys

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
    """A token names its user until it expires."""
    tokens = UserTokens([KEY], clock)
    token = tokens.issue("alice")
    assert tokens.verify(token) == "alice"
    clock.advance(LIFETIME - 1)
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
    """A hand-made token is valid, so that those below are rejected for their one difference."""
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
    """Any other text is rejected."""
    assert UserTokens([KEY], clock).verify(token) is None


KEY_LINE = "ab" * 32


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """A missing key file is created, readable only by its owner, and reused."""
    path = tmp_path / "state" / "keys"
    (key,) = read_signing_keys(path)
    assert len(key) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == [path]
    assert read_signing_keys(path) == (key,)
    assert read_signing_keys(tmp_path / "other") != (key,)


def test_several(tmp_path: Path) -> None:
    """Several keys keep their order."""
    path = tmp_path / "keys"
    path.touch(0o600)
    path.write_text(f"{KEY_LINE}\n{'cd' * 40}\n")
    assert read_signing_keys(path) == (bytes.fromhex(KEY_LINE), b"\xcd" * 40)


@pytest.mark.parametrize(
    "text", ["", "\n", "0123456789abcdef\n", "ab" * 31, "s3cret", f"ab\n{KEY_LINE[:-2]}\n", "\xe9" * 64]
)
def test_what_holds_no_keys(tmp_path: Path, text: str) -> None:
    """A file without keys is rejected without quoting it."""
    path = tmp_path / "file"
    path.touch(0o600)
    path.write_text(text)
    with pytest.raises(ValueError, match="keys") as raised:
        read_signing_keys(path)
    told = f"expected keys of at least 32 bytes in {path}, in hexadecimal, one a line"
    assert str(raised.value) == told


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620])
def test_what_others_may_read(tmp_path: Path, mode: int) -> None:
    """A key file that others may read is rejected."""
    path = tmp_path / "keys"
    path.write_text(KEY_LINE)
    path.chmod(mode)
    with pytest.raises(ValueError, match="expected mode 0600"):
        read_signing_keys(path)


def test_where_nothing_can_be_made(tmp_path: Path) -> None:
    """It says so."""
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        read_signing_keys(tmp_path / "file" / "keys")
