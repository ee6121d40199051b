"""Users of the mirror: names and passwords in a file, and the mirror's own tokens."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import bcrypt
import jwt
import pytest
from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock

from dockmirror.config.field_types import SettingsFile
from dockmirror.users import (
    LIFETIME,
    ApiTokens,
    Htpasswd,
    UserTokens,
    bcrypt_cost,
    hashes_to_compare,
    parse_htpasswd,
    read_signing_keys,
)

from .stacks import Outcome, logged


def hash_password(password: str, cost: int = 4) -> str:
    """Return a hash as ``htpasswd -B`` makes it."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode().replace("$2b$", "$2y$", 1)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a file with alice in it."""
    path = tmp_path / "htpasswd"
    path.write_text(f"# people\n\nalice:{hash_password('s3cret')}\n")
    return path


def rewrite(file: Path, text: str) -> None:
    """Write the file at another time."""
    file.write_text(text)
    os.utime(file, ns=(1, file.stat().st_mtime_ns + 1_000_000_000))


def log_in(checker: Htpasswd, name: str, password: str) -> bool:
    """Return whether the user may log in."""
    outcome = Outcome(checker.requestAvatarId(UsernamePassword(name.encode(), password.encode())))
    if outcome == [name.encode()]:
        return True
    assert isinstance(outcome.error, UnauthorizedLogin)
    return False


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("alice", "wrong"),
        ("alice", ""),
        ("bob", "s3cret"),
        ("", "s3cret"),
        ("# people", ""),
        ("al\xffice", ""),
    ],
)
def test_a_wrong_password_is_rejected(file: Path, name: str, password: str) -> None:
    """In the same way as an unknown user."""
    checker = Htpasswd(file, maybeDeferred, set())
    assert log_in(checker, "alice", "s3cret")
    assert not log_in(checker, name, password)


def rounds(hashes: list[bytes]) -> int:
    """Return the work of comparing a password with all of these hashes."""
    return sum(1 << bcrypt_cost(each) for each in hashes)


@pytest.mark.parametrize("highest", [4, 5, 9, 12])
def test_an_unknown_user_takes_as_long_as_any(highest: int) -> None:
    for cost in range(4, highest + 1):
        own = bcrypt.gensalt(cost) + b"." * 31
        compared = hashes_to_compare(own, highest)
        assert compared[0] == own
        assert rounds(compared) == rounds(hashes_to_compare(None, highest)) == 1 << highest
    assert not any(bcrypt.checkpw(b"", each) for each in hashes_to_compare(None, 4))


def test_a_wrong_password_takes_the_time_of_the_files_highest_cost(tmp_path: Path) -> None:
    """For a user of a low cost, too."""
    cheap, dear = tmp_path / "cheap", tmp_path / "dear"
    cheap.write_text(f"alice:{hash_password('s3cret')}\n")
    dear.write_text(f"{cheap.read_text()}bob:{hash_password('b', cost=10)}\n")
    for name in ("alice", "nobody"):
        seconds = []
        for file in (cheap, dear):
            checker, start = Htpasswd(file, maybeDeferred, set()), time.thread_time()
            assert not log_in(checker, name, "x")
            seconds.append(time.thread_time() - start)
        assert seconds[1] > 8 * seconds[0]  # it is 64 times the work


def test_only_the_first_request_takes_bcrypts_time(file: Path) -> None:
    """Other passwords and users are checked."""
    calls: list[None] = []

    def in_thread(call: Callable[[], bool]) -> Awaitable[bool]:
        calls.append(None)
        return maybeDeferred(call)

    checker = Htpasswd(file, in_thread, set())
    for _ in range(3):
        assert log_in(checker, "alice", "s3cret")
    assert len(calls) == 1
    assert not log_in(checker, "alice", "wrong")
    assert not log_in(checker, "bob", "s3cret")
    assert len(calls) == 3


def test_a_changed_file_is_read_again(file: Path) -> None:
    """A user who is gone is refused, and a new password replaces the old one."""
    checker = Htpasswd(file, maybeDeferred, set())
    assert log_in(checker, "alice", "s3cret")
    rewrite(file, f"alice:{hash_password('newer')}\nbob:{hash_password('b')}\n")
    assert not log_in(checker, "alice", "s3cret")
    assert log_in(checker, "alice", "newer")
    rewrite(file, f"bob:{hash_password('b')}\n")
    assert not log_in(checker, "alice", "newer")
    assert log_in(checker, "bob", "b")


def test_a_file_that_becomes_readable_is_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though its time and size are unchanged."""

    def refuse(*_: object) -> str:
        raise PermissionError(13, "Permission denied")

    checker = Htpasswd(file, maybeDeferred, set())
    rewrite(file, f"bob:{hash_password('b')}\n")
    with monkeypatch.context() as locked:
        locked.setattr(Path, "read_text", refuse)
        assert log_in(checker, "alice", "s3cret")
    file.chmod(0o640)
    assert log_in(checker, "bob", "b")


def test_a_file_that_becomes_malformed_changes_nothing(file: Path) -> None:
    """It is logged once and without its contents, and read when it is right again."""
    checker = Htpasswd(file, maybeDeferred, set())
    with logged() as texts:
        rewrite(file, "bob:plain-text-password\n")
        for _ in range(3):
            assert log_in(checker, "alice", "s3cret")
        file.unlink()
        assert log_in(checker, "alice", "s3cret")
    expected = f"access.htpasswd: {file} cannot be read again, so its previous users stay valid: line 1"
    assert sum(expected in text for text in texts) == 1
    assert not any("plain-text" in text for text in texts)
    file.write_text("")
    assert not log_in(checker, "alice", "s3cret")


def test_verified_passwords_are_shared_between_processes(file: Path) -> None:
    """Until the user's hash changes."""
    shared: set[bytes] = set()
    alice = UsernamePassword(b"alice", b"s3cret")
    checkers = [Htpasswd(file, maybeDeferred, shared) for _ in range(2)]
    assert not any(checker.is_verified(alice) for checker in checkers)
    assert log_in(checkers[0], "alice", "s3cret")
    assert all(checker.is_verified(alice) for checker in checkers)
    assert not checkers[0].is_verified(UsernamePassword(b"alice", b"wrong"))
    rewrite(file, f"alice:{hash_password('s3cret')}\n")
    assert not any(checker.is_verified(alice) for checker in checkers)


@pytest.mark.parametrize(
    "line",
    [
        "alice",
        "alice:",
        ":$2y$",
        "alice:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=",
        "alice:$apr1$a$b",
        "alice:$2y$05$short",
        f"alice:$2y$99${'.' * 53}",
        f"alice:$2y$05${'!' * 53}",
        f"alice:$2y$05${'a' * 53}",
        f"alice:$2x$05${'.' * 53}",
    ],
)
def test_a_malformed_file_is_rejected(tmp_path: Path, line: str) -> None:
    """By line number, without quoting it; all prefixes of bcrypt hashes are accepted."""
    path = tmp_path / "htpasswd"
    path.write_text(f"# names\n{line}\n")
    with pytest.raises(ValueError, match=r"^line 2: expected NAME:HASH") as raised:
        Htpasswd(path, maybeDeferred, set())
    assert "alice" not in str(raised.value)
    plain = hash_password("x")[4:]
    assert set(parse_htpasswd(f"a:$2y${plain}\nb:$2b${plain}\n  c:$2a${plain}  \n")) == {"a", "b", "c"}


KEY, OLD = b"k" * 32, b"o" * 32
NOW = 1_800_000_000
VALID = {"sub": "alice", "exp": NOW + 60}
TYPE = {"typ": "dockmirror-access"}


@pytest.fixture
def clock() -> Clock:
    """Return a clock in the year 2027."""
    clock = Clock()
    clock.advance(NOW)
    return clock


def test_a_token_names_its_user_until_it_expires(clock: Clock) -> None:
    """The first key signs, all are accepted."""
    token = UserTokens([KEY], clock).issue("alice")
    for keys in ([KEY], [OLD, KEY]):
        assert UserTokens(keys, clock).verify(token) == "alice"
    assert UserTokens([OLD], clock).verify(token) is None
    assert UserTokens([OLD], clock).verify(UserTokens([OLD, KEY], clock).issue("bob")) == "bob"
    clock.advance(LIFETIME - 1)
    assert UserTokens([KEY], clock).verify(token) == "alice"
    clock.advance(1)
    assert UserTokens([KEY], clock).verify(token) is None


@pytest.mark.parametrize(
    ("claims", "key", "algorithm", "headers"),
    [
        (VALID, OLD, "HS256", TYPE),
        (VALID, "k" * 64, "HS512", TYPE),
        (VALID, b"k" * 48, "HS384", TYPE),
        (VALID, "", "none", TYPE),
        (VALID, KEY, "HS256", {}),
        (VALID, KEY, "HS256", {"typ": "JWT"}),
        ({"sub": "alice"}, KEY, "HS256", TYPE),
        ({"exp": NOW + 60}, KEY, "HS256", TYPE),
        ({**VALID, "exp": NOW}, KEY, "HS256", TYPE),
        ({**VALID, "exp": "later"}, KEY, "HS256", TYPE),
        ({**VALID, "nbf": NOW + 10**9}, KEY, "HS256", TYPE),
    ],
)
def test_any_other_token_is_rejected(
    clock: Clock, claims: dict[str, Any], key: Any, algorithm: str, headers: dict[str, str]
) -> None:
    """Signed by another key or in another way, of another kind, without an end, or at its end."""
    tokens = UserTokens([KEY], clock)
    assert tokens.verify(jwt.encode(VALID, KEY, "HS256", TYPE)) == "alice"
    assert tokens.verify(jwt.encode(claims, key, algorithm, headers)) is None
    for text in ("", "anonymous", "a.b.c", "\xff", "..", "e30.e30."):
        assert tokens.verify(text) is None


def test_a_missing_key_file_is_created(tmp_path: Path) -> None:
    """Readable only by its owner, and reused; where nothing can be created the error says so."""
    path = tmp_path / "state" / "keys"
    (key,) = read_signing_keys(SettingsFile(path))
    assert len(key) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == [path]
    assert read_signing_keys(SettingsFile(path)) == (key,)
    assert read_signing_keys(SettingsFile(tmp_path / "other")) != (key,)
    with pytest.raises(OSError, match="keys"):
        read_signing_keys(SettingsFile(path / "keys"))


KEY_LINE = "ab" * 32


@pytest.mark.parametrize(
    "text", ["", "\n", "0123456789abcdef\n", "ab" * 31, "s3cret", f"ab\n{KEY_LINE[:-2]}\n", "\xe9" * 64]
)
def test_a_file_without_keys_is_rejected(tmp_path: Path, text: str) -> None:
    """Without quoting it; several keys keep their order."""
    path = tmp_path / "file"
    path.touch(0o600)
    path.write_text(f"{KEY_LINE}\n{'cd' * 40}\n")
    assert read_signing_keys(SettingsFile(path)) == (bytes.fromhex(KEY_LINE), b"\xcd" * 40)
    path.write_text(text)
    with pytest.raises(ValueError, match="keys") as raised:
        read_signing_keys(SettingsFile(path))
    reason = f"expected keys of at least 32 bytes in {path}, in hexadecimal, one a line"
    assert str(raised.value) == reason


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620])
def test_a_key_file_that_others_may_read_is_rejected(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "keys"
    path.write_text(KEY_LINE)
    path.chmod(mode)
    with pytest.raises(ValueError, match="expected mode 0600"):
        read_signing_keys(SettingsFile(path))


def test_tokens_have_scopes_that_follow_the_file(tmp_path: Path) -> None:
    """Writing includes reading; an invalid file changes nothing."""
    file, hashed = tmp_path / "tokens", hash_password("secret")
    file.write_text(f"# who may what\n\nci:{hashed}:write\nwatch:{hashed}:read\nboth:{hashed}:read,write\n")
    tokens = ApiTokens(file, maybeDeferred, set())
    scopes = {(name, scope) for name in ("ci", "watch", "both", "no") for scope in ("read", "write")}
    allowed = {("ci", "read"), ("ci", "write"), ("watch", "read"), ("both", "read"), ("both", "write")}
    assert {each for each in scopes if tokens.has_scope(*each)} == allowed
    for line in ("ci:HASH", "ci:HASH:", "ci:HASH:admin", "ci:secret:write", ":HASH:write"):
        with pytest.raises(ValueError, match="line 1: "):
            tokens.parse(line.replace("HASH", hashed))
    file.write_text(f"watch:{hashed}:write\n")
    tokens.is_verified(UsernamePassword(b"watch", b"secret"))
    assert (tokens.has_scope("watch", "write"), tokens.has_scope("ci", "read")) == (True, False)
    file.unlink()
    with logged() as texts:
        tokens.is_verified(UsernamePassword(b"watch", b"secret"))
    expected = f"api_tokens_file: {file} cannot be read again, so its previous tokens stay valid"
    assert any(expected in text for text in texts)
    assert tokens.has_scope("watch", "write")
