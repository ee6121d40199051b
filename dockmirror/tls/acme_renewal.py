"""Certificates from an ACME authority: the files on disk, and their renewal before they expire."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..concurrency.backoff import Backoff
from ..concurrency.periodic_task import PeriodicTask
from .certificate_files import PemFile, public_key

TOKEN = re.compile(r"[A-Za-z0-9_-]{1,256}")
_RENEW_AFTER = 2 / 3
_CERTIFICATE_SIZE = 16 * 1024
"""Bytes that a certificate needs at most, with its chain and its key."""


class AcmeStore:
    """Files in the subdirectory ``acme``, readable only by the mirror.

    ``NAME.pem`` is a certificate with its key, ``account`` the account key, and ``proofs`` holds challenge
    proofs while an authority may ask for them.

    :param directory: of all certificates; created if it is missing.
    """

    def __init__(self, directory: Path) -> None:
        self.folder = directory / "acme"
        self._proofs = self.folder / "proofs"

    def certificate_path(self, name: str) -> Path:
        """Return the path of the name's certificate, which need not exist."""
        return self.folder / f"{name}.pem"

    def save_certificate(self, name: str, pem: bytes) -> None:
        """Save a certificate with its key, replacing the previous one.

        :raises NameRefused: when they do not belong together; then the previous one stays.
        """
        if not _is_pair(pem):
            raise NameRefused("the authority sent no certificate for the mirror's key")
        _write(self.certificate_path(name), pem)

    def renewal_time(self, name: str) -> float | None:
        """Return when two thirds of the certificate's life have passed, in seconds since 1970, or None."""
        try:
            certificate = PemFile.parse(self.certificate_path(name).read_bytes()).certificates[0]
        except (OSError, ValueError, IndexError):
            return None
        begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        return begins.timestamp() + _RENEW_AFTER * (ends - begins).total_seconds()

    def account_key(self, make: Callable[[], bytes]) -> bytes:
        """Return the account key; create it if there is none."""
        path = self.folder / "account"
        if not path.exists():
            _write(path, make())
        return path.read_bytes()

    @contextmanager
    def publish_proofs(self) -> Iterator[Callable[[str, str], None]]:
        """Yield a function that publishes the proof for a token; remove all proofs at the end.

        It fails with OSError, before the authority is asked, where a certificate could not be saved.  Proofs
        that a killed mirror left behind are removed first. Another process that shares the directory
        waits until the end.
        """

        def prove(token: str, proof: str) -> None:
            if not TOKEN.fullmatch(token):
                raise OSError("the authority sent an invalid token")
            _write(self._proofs / token, proof.encode())

        with self._locked():
            self._remove_proofs()
            self._check_room()
            try:
                yield prove
            finally:
                self._remove_proofs()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _check_room(self) -> None:
        room = self.folder / ".room"
        try:
            room.write_bytes(bytes(_CERTIFICATE_SIZE))
        finally:
            room.unlink(missing_ok=True)

    def _remove_proofs(self) -> None:
        with suppress(OSError):
            for path in self._proofs.iterdir():
                path.unlink()

    def find_proof(self, token: str) -> bytes | None:
        """Return the proof for a token, or None if no authority is asking for it now."""
        try:
            return (self._proofs / token).read_bytes() if TOKEN.fullmatch(token) else None
        except OSError:
            return None


def _is_pair(pem: bytes) -> bool:
    try:
        read = PemFile.parse(pem)
        return public_key(read.keys[0]) == public_key(read.certificates[0])
    except (ValueError, IndexError):
        return False


def _write(path: Path, data: bytes) -> None:
    """Replace the file atomically."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


CHECK_PERIOD = 10.0
"""Seconds between two checks for certificates that are due."""
FIRST, LONGEST = 30.0, 21_600.0
"""Seconds of pause after a name's first failure, and the most that it grows to."""
FACTOR = 8.0
"""The factor by which each pause exceeds the one before: a name fails at most four times in an hour.

Let's Encrypt allows five failures per name and hour (https://letsencrypt.org/docs/rate-limits/).
"""
_ALL = ""
_DUE_AGAIN = "the new certificate for {name} is due for renewal; retrying in {pause:g} s: is the clock right?"
_FAILED = "no certificate for {name}; retrying in {pause:g} s: {error}"

_log = Logger()


class NameRefused(Exception):
    """The authority refused a certificate for this name; the message says why."""


class AuthorityUnavailable(Exception):
    """The authority issues no certificates at all now; the message says why."""


class CertificateRenewal(PeriodicTask):
    """Requests due certificates one after the other, and backs off from names that fail.

    :param names: returns the names that need a certificate now.
    :param due: returns when a name's certificate is to be renewed, in the clock's seconds, or None without
        one.
    :param issue: obtains it; fails with ``NameRefused`` or ``AuthorityUnavailable``.
    """

    def __init__(
        self,
        names: Callable[[], Iterable[str]],
        due: Callable[[str], float | None],
        issue: Callable[[str], Awaitable[None]],
        clock: IReactorTime,
    ) -> None:
        super().__init__(self.renew_due, CHECK_PERIOD, clock, "cannot renew certificates", at_once=True)
        self._names = names
        self._due = due
        self._issue = issue
        self._clock = clock
        self._backoff: Backoff[str, None] = Backoff(clock, FIRST, LONGEST, FACTOR)

    def startService(self) -> None:
        """Check at once; called when the mirror listens, since an authority asks it for proof."""
        missing = [name for name in self._names() if self._due(name) is None]
        if missing:
            _log.warn(
                "no certificate yet for {names}: https to them fails until one is issued",
                names=", ".join(missing),
            )
        super().startService()

    async def renew_due(self) -> None:
        """Renew the certificates that are due, except for names in back-off."""
        for name in self._names():
            if self._is_due(name) and not self._is_backing_off(name):
                await self._renew(name)

    def _is_due(self, name: str) -> bool:
        due = self._due(name)
        return due is None or due <= self._clock.seconds()

    def _is_backing_off(self, name: str) -> bool:
        return any(self._backoff.current_pause(key) is not None for key in (_ALL, name))

    async def _renew(self, name: str) -> None:
        try:
            await self._issue(name)
        except NameRefused as error:
            self._backoff.record_success(_ALL)
            _log.error(_FAILED, name=name, pause=self._backoff.record_failure(name, None), error=str(error))
        except AuthorityUnavailable as error:
            pause = self._backoff.record_failure(_ALL, None)
            _log.error(
                "the certificate authority is unavailable; retrying in {pause:g} s: {error}",
                pause=pause, error=str(error),
            )  # fmt: skip
        except CancelledError:
            raise
        except Exception as error:  # an invalid answer of the authority, or a defect of the mirror
            _log.failure(
                _FAILED, name=name, pause=self._backoff.record_failure(name, None), error=type(error).__name__
            )
        else:
            self._backoff.record_success(_ALL)
            if self._is_due(name):
                pause = self._backoff.record_failure(name, None)
                _log.error(_DUE_AGAIN, name=name, pause=pause)
                return
            self._backoff.record_success(name)
            _log.info("new certificate for {name}", name=name)
