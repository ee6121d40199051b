"""Names and passwords in a file, as ``htpasswd -B`` writes it."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

import bcrypt
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import LoginFailed, UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

_HASH = re.compile(r"\$2[aby]\$(0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}")
_NOBODY = bcrypt.hashpw(os.urandom(16), bcrypt.gensalt(10))
"""What the password of a name that is not there is compared with: a refusal takes as long either way."""
_WAITING = 64
_KNOWN = 10_000

InThread = Callable[[Callable[[], bool]], Awaitable[bool]]
_log = Logger()


class Busy(LoginFailed):
    """Too many passwords are being looked at already."""


def parse(text: str) -> dict[str, bytes]:
    """The hash of each name's password.

    :raises ValueError: for a line that is none, by its number and without what stands in it.
    """
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, hashed = line.strip().partition(":")
        if not (name and colon and _HASH.fullmatch(hashed)):
            raise ValueError(f"line {number}: expected NAME:HASH, hashed with bcrypt as 'htpasswd -B' does")
        found[name] = hashed.encode()
    return found


@implementer(ICredentialsChecker)
class Htpasswd:
    """The names in a file, which is read again when it has changed.

    A password that was right is known to be for as long as the file has the same hash for the name: of a
    client that sends it with each request only the first one costs the time that bcrypt takes on purpose.

    :param in_thread: where passwords are hashed.
    :raises OSError: when the file cannot be read.
    :raises ValueError: when it is no such file.
    """

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, path: Path, in_thread: InThread) -> None:
        self._path = path
        self._in_thread = in_thread
        self._seen = _stamp(path)
        self._hashes: Mapping[str, bytes] = parse(path.read_text("utf-8"))
        self._known: dict[bytes, bytes] = {}
        self._salt = os.urandom(16)
        self._waiting = 0
        self._wrong = False

    def requestAvatarId(self, credentials: IUsernamePassword) -> Deferred[bytes | tuple[()]]:
        """Fires with the name.

        It fails with ``UnauthorizedLogin`` when the password is not the name's, and with ``Busy``.
        """
        return Deferred.fromCoroutine(self._check(credentials.username, credentials.password))

    async def _check(self, name: bytes, password: bytes) -> bytes | tuple[()]:
        self._read_again()
        hashed = self._hashes.get(name.decode("utf-8", "replace"))
        fingerprint = hashlib.sha256(b"\0".join((self._salt, name, password))).digest()
        if hashed is not None and self._known.get(fingerprint) == hashed:
            return name
        if self._waiting >= _WAITING:
            raise Busy
        self._waiting += 1
        try:
            right = await self._in_thread(partial(_is_right, password, hashed or _NOBODY))
        finally:
            self._waiting -= 1
        if hashed is None or not right:
            raise UnauthorizedLogin
        if len(self._known) >= _KNOWN:
            self._known.clear()
        self._known[fingerprint] = hashed
        return name

    def _read_again(self) -> None:
        """A small file, in memory already; one that has become wrong changes nothing."""
        try:
            seen = _stamp(self._path)
            if seen == self._seen:
                return
            self._seen = seen
            self._hashes = parse(self._path.read_text("utf-8"))
            self._wrong = False
        except (OSError, ValueError) as error:
            if not self._wrong:
                self._wrong = True
                _log.error("htpasswd: the names are as before: {error}", error=_told(error))


def _is_right(password: bytes, hashed: bytes) -> bool:
    """bcrypt sees no more than 72 bytes, and no more were hashed."""
    return bcrypt.checkpw(password[:72], hashed)


def _stamp(path: Path) -> tuple[int, ...]:
    """By what it is seen that the file is another one, or that it may be read by now."""
    status = path.stat()
    return status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size


def _told(error: Exception) -> str:
    return (error.strerror or "it cannot be read") if isinstance(error, OSError) else str(error)
