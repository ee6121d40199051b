"""User accounts of the mirror: passwords in an htpasswd file, and the tokens of users who have logged in."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import bcrypt
import jwt
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from .config.field_types import SettingsFile
from .system.posix import chown_to_parent

_HASH = re.compile(r"\$2[aby]\$(0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}")
_MIN_COST = 4  # for a file without names

InThread = Callable[[Callable[[], bool]], Awaitable[bool]]
_log = Logger()


class VerifiedDigests(Protocol):
    """A set of digests, each of a user name, its password and its hash."""

    def __contains__(self, digest: bytes) -> bool: ...

    def add(self, digest: bytes) -> None: ...


def parse_htpasswd(text: str) -> dict[str, bytes]:
    """Return the password hash of each user.

    :raises ValueError: for a malformed line; it names the line by number and never quotes it.
    """
    hashes = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, hashed = line.strip().partition(":")
        if not (name and colon and _HASH.fullmatch(hashed)):
            raise ValueError(
                f"line {number}: expected NAME:HASH, hashed with bcrypt as 'htpasswd -B -C 12' does"
            )
        hashes[name] = hashed.encode()
    return hashes


@implementer(ICredentialsChecker)
class Htpasswd:
    """Checks passwords against a file, which is read again after a change.

    A verified password is remembered as long as the user's hash in the file stays the same, so that of a
    client that sends it with each request only the first one takes bcrypt's deliberate time.  A wrong
    password takes the time of the file's highest cost, whether the user exists or not.

    :param in_thread: runs a hash in a thread.
    :param verified: digests of verified passwords, shared by the processes of a mirror.
    :raises OSError: when the file cannot be read.
    :raises ValueError: when it is malformed.
    """

    credentialInterfaces = (IUsernamePassword,)
    _setting, _entries = "access.htpasswd", "users"

    def __init__(self, path: Path, in_thread: InThread, verified: VerifiedDigests) -> None:
        self._path = path
        self._in_thread = in_thread
        self._verified = verified
        self._version = _file_version(path)
        self._hashes: Mapping[str, bytes] = self.parse(path.read_text("utf-8"))
        self._reload_failed = False

    def parse(self, text: str) -> Mapping[str, bytes]:
        """Return the hash of each user; see ``parse_htpasswd``."""
        return parse_htpasswd(text)

    def is_verified(self, credentials: IUsernamePassword) -> bool:
        """Return whether this user's password was verified before, without hashing it with bcrypt."""
        self._reload_if_changed()
        hashed = self._find_hash(credentials)
        return hashed is not None and _digest(credentials, hashed) in self._verified

    def requestAvatarId(self, credentials: IUsernamePassword) -> Deferred[bytes | tuple[()]]:
        """Fire with the user name, or fail with ``UnauthorizedLogin`` if the password is wrong."""
        return Deferred.fromCoroutine(self._check(credentials))

    async def _check(self, credentials: IUsernamePassword) -> bytes | tuple[()]:
        if self.is_verified(credentials):
            return credentials.username
        hashed, highest = (
            self._find_hash(credentials),
            max(map(bcrypt_cost, self._hashes.values()), default=_MIN_COST),
        )
        matches = await self._in_thread(partial(_matches_hash, credentials.password, hashed, highest))
        if hashed is None or not matches:
            raise UnauthorizedLogin
        self._verified.add(_digest(credentials, hashed))
        return credentials.username

    def _find_hash(self, credentials: IUsernamePassword) -> bytes | None:
        return self._hashes.get(credentials.username.decode("utf-8", "replace"))

    def _reload_if_changed(self) -> None:
        """Reload the file if it has changed; keep the previous users if it is missing or malformed."""
        try:
            version = _file_version(self._path)
            if version == self._version:
                return
            self._version = version
            self._hashes = self.parse(self._path.read_text("utf-8"))
            self._reload_failed = False
        except (OSError, ValueError) as error:
            if not self._reload_failed:
                self._reload_failed = True
                _log.error(
                    "{setting}: {path} cannot be read again, so its previous {entries} stay valid: {error}",
                    setting=self._setting,
                    path=str(self._path),
                    entries=self._entries,
                    error=_describe(error),
                )


SCOPES = ("read", "write")


class ApiTokens(Htpasswd):
    """The tokens of the API: a file as of ``Htpasswd``, in which each line ends with ``:`` and its scopes."""

    _setting, _entries = "api_tokens_file", "tokens"
    _scopes: Mapping[str, frozenset[str]]

    def parse(self, text: str) -> Mapping[str, bytes]:
        """Read the hashes, and remember the scopes.

        :raises ValueError: for a malformed line; it names the line by number and never quotes it.
        """
        hashes: list[str] = []
        scopes: dict[str, frozenset[str]] = {}
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                hashes.append("")
                continue
            entry, _, listed = line.strip().rpartition(":")
            named = frozenset(listed.split(","))
            if not named <= set(SCOPES):
                raise ValueError(f"line {number}: expected NAME:HASH:SCOPES with scopes of read and write")
            hashes.append(entry)
            scopes[entry.partition(":")[0]] = named
        parsed = parse_htpasswd("\n".join(hashes))
        self._scopes = scopes
        return parsed

    def has_scope(self, name: str, scope: str) -> bool:
        """Return whether a token may be used for that; writing includes reading."""
        return bool(self._scopes.get(name, frozenset()) & {scope, "write"})


def hashes_to_compare(hashed: bytes | None, highest: int) -> list[bytes]:
    """Return the hashes that a wrong password is compared with, the user's own first.

    Each cost takes twice the time of the one below: a hash of a lower cost than the highest, and stand-ins
    from that cost on, take as long in all as one of the highest.

    :param hashed: None for an unknown user.
    """
    if hashed is None:
        return [_stand_in(highest)]
    return [hashed, *map(_stand_in, range(bcrypt_cost(hashed), highest))]


def _matches_hash(password: bytes, hashed: bytes | None, highest: int) -> bool:
    """Compare a password; bcrypt uses only its first 72 bytes."""
    own, *others = hashes_to_compare(hashed, highest)
    matches = bcrypt.checkpw(password[:72], own)
    if not matches:
        for other in others:
            bcrypt.checkpw(password[:72], other)
    return matches


def _stand_in(cost: int) -> bytes:
    """Return a hash of that cost that no password is known to match."""
    return bcrypt.gensalt(cost) + b"." * 31


def bcrypt_cost(hashed: bytes) -> int:
    """Return the cost of a bcrypt hash: the logarithm of its number of rounds."""
    return int(hashed[4:6])


def _digest(credentials: IUsernamePassword, hashed: bytes) -> bytes:
    """Return a digest of a user name and password; the hash's salt salts it."""
    name = hashlib.sha256(credentials.username).digest()
    return hashlib.sha256(hashed + name + credentials.password).digest()


def _file_version(path: Path) -> tuple[int, ...]:
    """Return values that change when the file is replaced, edited, or made readable."""
    status = path.stat()
    return status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size


def _describe(error: Exception) -> str:
    return (error.strerror or "it cannot be read") if isinstance(error, OSError) else str(error)


LIFETIME = 300
"""Seconds; clients expect at least 60."""
_ALGORITHM = "HS256"
_TYPE = "dockmirror-access"


class UserTokens:
    """Issues tokens signed with the first key, and accepts those signed with any key.

    Source: RFC 7519; the type is explicit (RFC 8725, 3.11) and the algorithm is pinned (3.1).

    :ivar life: seconds for which a token is valid.
    """

    life = LIFETIME

    def __init__(self, keys: Sequence[bytes], clock: IReactorTime) -> None:
        self._keys = keys
        self._clock = clock

    def issue(self, name: str) -> str:
        """Return a token for the user, valid for ``LIFETIME`` seconds."""
        now = int(self._clock.seconds())
        claims = {"sub": name, "iat": now, "exp": now + LIFETIME}
        return jwt.encode(claims, self._keys[0], _ALGORITHM, {"typ": _TYPE})

    def verify(self, token: str) -> str | None:
        """Return the user that the token names, or None if it is invalid or expired."""
        for key in self._keys:
            try:
                # The time is checked below, by the given clock.
                decoded = jwt.decode_complete(
                    token,
                    key,
                    [_ALGORITHM],
                    {"require": ["sub", "exp"], "verify_exp": False, "verify_iat": False},
                )
            except jwt.InvalidTokenError:
                continue
            claims = decoded["payload"]
            if decoded["header"].get("typ") != _TYPE or not isinstance(claims["exp"], int):
                return None
            return str(claims["sub"]) if self._clock.seconds() < claims["exp"] else None
        return None


_MIN_BYTES = 32


def read_signing_keys(path: SettingsFile) -> tuple[bytes, ...]:
    """Read keys from a file, one per line in hexadecimal; create it with a new key if it is missing.

    The first key signs, and all are accepted: a new first line replaces a key without logging users out.

    :raises OSError: when the file can be neither read nor created.
    :raises ValueError: when it holds no valid keys, or others may read it.
    """
    lines = path.read_once(_read_keys).split()
    try:
        keys = tuple(bytes.fromhex(line.decode("ascii")) for line in lines)
    except ValueError:
        keys = ()
    if not keys or any(len(key) < _MIN_BYTES for key in keys):
        raise ValueError(
            f"expected keys of at least {_MIN_BYTES} bytes in {path}, in hexadecimal, one a line"
        )
    return keys


def _read_keys(path: Path) -> bytes:
    if not path.exists():
        _create(path)
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_mode & 0o077:
            raise ValueError(f"others may read {path}: expected mode 0600")
        return file.read()


def _create(path: Path) -> None:
    """Create the file atomically; if two processes do so at once, the first file stays."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with open(descriptor, "w") as file:
            file.write(f"{secrets.token_hex(_MIN_BYTES)}\n")
            file.flush()
            os.fsync(descriptor)
        chown_to_parent(temporary)
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
