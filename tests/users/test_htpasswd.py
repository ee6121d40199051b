"""Names and passwords in a file."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import bcrypt
import pytest
from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import maybeDeferred

from dockmirror.users import Htpasswd, bcrypt_cost, hashes_to_compare, parse_htpasswd
from tests.stacks import Outcome, logged


def hashed(password: str) -> str:
    """As ``htpasswd -B`` hashes it, at the least cost."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode().replace("$2b$", "$2y$", 1)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """With alice in it."""
    path = tmp_path / "htpasswd"
    path.write_text(f"# people\n\nalice:{hashed('s3cret')}\n")
    return path


def rewritten(file: Path, text: str) -> None:
    """Written anew, at another time."""
    file.write_text(text)
    os.utime(file, ns=(1, file.stat().st_mtime_ns + 1_000_000_000))


def asked(checker: Htpasswd, name: str, password: str) -> Outcome:
    """Return the result of a login."""
    return Outcome(checker.requestAvatarId(UsernamePassword(name.encode(), password.encode())))


def test_a_right_password(file: Path) -> None:
    """A right password returns the user name."""
    assert asked(Htpasswd(file, maybeDeferred, set()), "alice", "s3cret").get() == b"alice"


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
def test_a_wrong_one(file: Path, name: str, password: str) -> None:
    """A wrong password and an unknown user are rejected in the same way."""
    assert isinstance(asked(Htpasswd(file, maybeDeferred, set()), name, password).error, UnauthorizedLogin)


def spent(hashes: list[bytes]) -> int:
    """Return the cost of comparing a password with all of these hashes."""
    return sum(1 << bcrypt_cost(each) for each in hashes)


@pytest.mark.parametrize("highest", [4, 5, 9, 12])
def test_a_name_that_is_not_there_takes_as_long(highest: int) -> None:
    """An unknown user takes as long as any user of the file."""
    for cost in range(4, highest + 1):
        own = bcrypt.gensalt(cost) + b"." * 31
        compared = hashes_to_compare(own, highest)
        assert compared[0] == own
        assert spent(compared) == spent(hashes_to_compare(None, highest)) == 1 << highest
    assert not any(bcrypt.checkpw(b"", each) for each in hashes_to_compare(None, 4))


def test_the_highest_cost_of_the_file_counts(tmp_path: Path) -> None:
    """A name that is not there takes more work than one of a low cost alone, by the file's other names."""
    cheap, dear = tmp_path / "cheap", tmp_path / "dear"
    cheap.write_text(f"alice:{hashed('s3cret')}\n")
    dear.write_text(f"alice:{hashed('s3cret')}\nbob:{bcrypt.hashpw(b'b', bcrypt.gensalt(10)).decode()}\n")
    for name in ("alice", "nobody"):
        works = []
        for file in (cheap, dear):
            checker, began = Htpasswd(file, maybeDeferred, set()), time.thread_time()
            assert isinstance(asked(checker, name, "x").error, UnauthorizedLogin)
            works.append(time.thread_time() - began)
        assert works[1] > 8 * works[0]  # it is 64 times the work


def test_a_password_that_was_right_is_known(file: Path) -> None:
    """Only the first request takes bcrypt's time; other passwords and users are checked."""
    calls: list[None] = []

    def counted(call: Callable[[], bool]) -> Awaitable[bool]:
        calls.append(None)
        return maybeDeferred(call)

    checker = Htpasswd(file, counted, set())
    for _ in range(3):
        asked(checker, "alice", "s3cret").get()
    assert len(calls) == 1
    assert isinstance(asked(checker, "alice", "wrong").error, UnauthorizedLogin)
    assert isinstance(asked(checker, "bob", "s3cret").error, UnauthorizedLogin)
    assert len(calls) == 3


def test_the_file_is_read_again(file: Path) -> None:
    """When it has changed: who is gone is refused, and a new password replaces the old one."""
    checker = Htpasswd(file, maybeDeferred, set())
    asked(checker, "alice", "s3cret").get()
    rewritten(file, f"alice:{hashed('newer')}\nbob:{hashed('b')}\n")
    assert isinstance(asked(checker, "alice", "s3cret").error, UnauthorizedLogin)
    assert asked(checker, "alice", "newer").get() == b"alice"
    rewritten(file, f"bob:{hashed('b')}\n")
    assert isinstance(asked(checker, "alice", "newer").error, UnauthorizedLogin)
    assert asked(checker, "bob", "b").get() == b"bob"


def test_a_file_that_could_not_be_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that becomes readable is read, though its time and size are unchanged."""
    checker = Htpasswd(file, maybeDeferred, set())
    rewritten(file, f"bob:{hashed('b')}\n")
    with monkeypatch.context() as locked:
        locked.setattr(Path, "read_text", _refused)
        assert asked(checker, "alice", "s3cret").get() == b"alice"
    file.chmod(0o640)
    assert asked(checker, "bob", "b").get() == b"bob"


def _refused(*_: object) -> str:
    raise PermissionError(13, "Permission denied")


def test_a_file_that_has_become_wrong(file: Path) -> None:
    """Changes nothing, and is told of once and without its contents; it is read when it is right again."""
    checker = Htpasswd(file, maybeDeferred, set())
    with logged() as texts:
        rewritten(file, "bob:plain-text-password\n")
        for _ in range(3):
            assert asked(checker, "alice", "s3cret").get() == b"alice"
        file.unlink()
        assert asked(checker, "alice", "s3cret").get() == b"alice"
    assert sum("reload failed, keeping previous users: line 1" in text for text in texts) == 1
    assert not any("plain-text" in text for text in texts)
    file.write_text("")
    assert isinstance(asked(checker, "alice", "s3cret").error, UnauthorizedLogin)


def test_what_was_right_is_known_to_others(file: Path) -> None:
    """Verified passwords are shared between processes, until the user's hash changes."""
    shared: set[bytes] = set()
    alice = UsernamePassword(b"alice", b"s3cret")
    checkers = [Htpasswd(file, maybeDeferred, shared) for _ in range(2)]
    assert not any(checker.is_verified(alice) for checker in checkers)
    asked(checkers[0], "alice", "s3cret").get()
    assert all(checker.is_verified(alice) for checker in checkers)
    assert not checkers[0].is_verified(UsernamePassword(b"alice", b"wrong"))
    rewritten(file, f"alice:{hashed('s3cret')}\n")
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
def test_what_is_no_such_file(tmp_path: Path, line: str) -> None:
    """A malformed file is rejected by line number, without quoting it."""
    path = tmp_path / "htpasswd"
    path.write_text(f"# names\n{line}\n")
    with pytest.raises(ValueError, match=r"^line 2: expected NAME:HASH") as raised:
        Htpasswd(path, maybeDeferred, set())
    assert "alice" not in str(raised.value)


def test_all_of_bcrypts_spellings() -> None:
    """All prefixes of bcrypt hashes are accepted."""
    plain = hashed("x")[4:]
    assert set(parse_htpasswd(f"a:$2y${plain}\nb:$2b${plain}\n  c:$2a${plain}  \n")) == {"a", "b", "c"}
