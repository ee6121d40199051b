"""Names and passwords in a file, as ``htpasswd -B -C 12`` writes it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Protocol

import bcrypt
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

_HASH = re.compile(r"\$2[aby]\$(0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}")
_LOWEST = 4  # for a file without names

InThread = Callable[[Callable[[], bool]], Awaitable[bool]]
_log = Logger()


class VerifiedDigests(Protocol):
    """A set of digests, each of a name, its password and its hash."""

    def __contains__(self, digest: bytes) -> bool: ...

    def add(self, digest: bytes) -> None:
        """Adds one."""


def parse_htpasswd(text: str) -> dict[str, bytes]:
    """The hash of each name's password.

    :raises ValueError: for a line that is none, by its number and without what stands in it.
    """
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, hashed = line.strip().partition(":")
        if not (name and colon and _HASH.fullmatch(hashed)):
            raise ValueError(
                f"line {number}: expected NAME:HASH, hashed with bcrypt as 'htpasswd -B -C 12' does"
            )
        found[name] = hashed.encode()
    return found


@implementer(ICredentialsChecker)
class Htpasswd:
    """The names in a file, which is read again when it has changed.

    A password that was right is known to be for as long as the file has the same hash for the name: of a
    client that sends it with each request only the first one costs the time that bcrypt takes on purpose.
    A wrong one takes the time of the file's highest cost, whether the name is in the file or not.

    :param in_thread: where passwords are hashed.
    :param verified: what was right; processes that serve as one share it.
    :raises OSError: when the file cannot be read.
    :raises ValueError: when it is no such file.
    """

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, path: Path, in_thread: InThread, verified: VerifiedDigests) -> None:
        self._path = path
        self._in_thread = in_thread
        self._verified = verified
        self._seen = _file_version(path)
        self._hashes: Mapping[str, bytes] = parse_htpasswd(path.read_text("utf-8"))
        self._wrong = False

    def is_verified(self, credentials: IUsernamePassword) -> bool:
        """Whether this password of this name was right before; nothing is hashed by bcrypt for that."""
        self._read_again()
        hashed = self._hash(credentials)
        return hashed is not None and _digest(credentials, hashed) in self._verified

    def requestAvatarId(self, credentials: IUsernamePassword) -> Deferred[bytes | tuple[()]]:
        """Fires with the name, or fails with ``UnauthorizedLogin`` when the password is not the name's."""
        return Deferred.fromCoroutine(self._check(credentials))

    async def _check(self, credentials: IUsernamePassword) -> bytes | tuple[()]:
        if self.is_verified(credentials):
            return credentials.username
        hashed, highest = (
            self._hash(credentials),
            max(map(bcrypt_cost, self._hashes.values()), default=_LOWEST),
        )
        right = await self._in_thread(partial(_matches_hash, credentials.password, hashed, highest))
        if hashed is None or not right:
            raise UnauthorizedLogin
        self._verified.add(_digest(credentials, hashed))
        return credentials.username

    def _hash(self, credentials: IUsernamePassword) -> bytes | None:
        return self._hashes.get(credentials.username.decode("utf-8", "replace"))

    def _read_again(self) -> None:
        """A small file, in memory already; one that has become wrong changes nothing."""
        try:
            seen = _file_version(self._path)
            if seen == self._seen:
                return
            self._seen = seen
            self._hashes = parse_htpasswd(self._path.read_text("utf-8"))
            self._wrong = False
        except (OSError, ValueError) as error:
            if not self._wrong:
                self._wrong = True
                _log.error("htpasswd: the names are as before: {error}", error=_told(error))


def hashes_to_compare(hashed: bytes | None, highest: int) -> list[bytes]:
    """Return the hashes that a wrong password is compared with, the name's own first.

    Each cost takes twice the time of the one below: a hash of a lower cost than the highest, and stand-ins
    from that cost on, take as long in all as one of the highest.

    :param hashed: None for a name that is not there.
    """
    if hashed is None:
        return [_stand_in(highest)]
    return [hashed, *map(_stand_in, range(bcrypt_cost(hashed), highest))]


def _matches_hash(password: bytes, hashed: bytes | None, highest: int) -> bool:
    """bcrypt sees no more than 72 bytes, and no more were hashed."""
    own, *others = hashes_to_compare(hashed, highest)
    right = bcrypt.checkpw(password[:72], own)
    if not right:
        for other in others:
            bcrypt.checkpw(password[:72], other)
    return right


def _stand_in(cost: int) -> bytes:
    """A hash of that cost that no password is known to have."""
    return bcrypt.gensalt(cost) + b"." * 31


def bcrypt_cost(hashed: bytes) -> int:
    """The logarithm of how often bcrypt goes over a password for this hash."""
    return int(hashed[4:6])


def _digest(credentials: IUsernamePassword, hashed: bytes) -> bytes:
    """Salted, as the hash has a salt in it."""
    name = hashlib.sha256(credentials.username).digest()
    return hashlib.sha256(hashed + name + credentials.password).digest()


def _file_version(path: Path) -> tuple[int, ...]:
    """By what it is seen that the file is another one, or that it may be read by now."""
    status = path.stat()
    return status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size


def _told(error: Exception) -> str:
    return (error.strerror or "it cannot be read") if isinstance(error, OSError) else str(error)
