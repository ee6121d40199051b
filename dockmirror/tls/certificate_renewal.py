"""Renew certificates before they expire."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from attrs import frozen
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..concurrency.periodic_task import PeriodicTask

CHECK_PERIOD = 10.0
"""Seconds between two checks for certificates that are due."""
RETRY_DELAYS = (30.0, 300.0, 1800.0, 7200.0, 21_600.0)
"""Seconds until a failed name is retried, longer each time.

Let's Encrypt allows five failures per name and hour (https://letsencrypt.org/docs/rate-limits/).
"""
_ALL = ""
_FAILED = "no certificate for {name}; retrying in {pause:g} s: {error}"

_log = Logger()


class NameRefused(Exception):
    """The authority refused a certificate for this name; the message says why."""


class AuthorityUnavailable(Exception):
    """The authority issues no certificates at all now; the message says why."""


@frozen
class _Backoff:
    until: float
    failures: int


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
        self._backoffs: dict[str, _Backoff] = {}

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
            due = self._due(name)
            if (due is None or due <= self._clock.seconds()) and not self._is_backing_off(name):
                await self._renew(name)

    def _is_backing_off(self, name: str) -> bool:
        backoffs = [self._backoffs[key] for key in (_ALL, name) if key in self._backoffs]
        return any(self._clock.seconds() < backoff.until for backoff in backoffs)

    async def _renew(self, name: str) -> None:
        try:
            await self._issue(name)
        except NameRefused as error:
            self._backoffs.pop(_ALL, None)
            _log.error(_FAILED, name=name, pause=self._back_off(name), error=str(error))
        except AuthorityUnavailable as error:
            pause = self._back_off(_ALL)
            _log.error(
                "the certificate authority is unavailable; retrying in {pause:g} s: {error}",
                pause=pause, error=str(error),
            )  # fmt: skip
        except CancelledError:
            raise
        except Exception as error:  # of an authority whose answers are none, or of ours
            _log.failure(_FAILED, name=name, pause=self._back_off(name), error=type(error).__name__)
        else:
            self._backoffs.pop(_ALL, None)
            self._backoffs.pop(name, None)
            _log.info("new certificate for {name}", name=name)

    def _back_off(self, key: str) -> float:
        failures = self._backoffs[key].failures if key in self._backoffs else 0
        pause = RETRY_DELAYS[min(failures, len(RETRY_DELAYS) - 1)]
        self._backoffs[key] = _Backoff(self._clock.seconds() + pause, failures + 1)
        return pause
