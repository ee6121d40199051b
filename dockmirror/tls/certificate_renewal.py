"""A certificate for each name, before the one that there is ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from attrs import frozen
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..concurrency.periodic_task import PeriodicTask

CHECK_PERIOD = 10.0
"""Seconds between two looks at which certificates are due."""
RETRY_DELAYS = (30.0, 300.0, 1800.0, 7200.0, 21_600.0)
"""Seconds until it is asked again for what has failed, longer each time.

Let's Encrypt takes five failures of a name in an hour (https://letsencrypt.org/docs/rate-limits/).
"""
_ALL = ""
_NONE = "there is no certificate for {name}, which is asked for again in {pause:g} s: {error}"

_log = Logger()


class NameRefused(Exception):
    """There is no certificate for that one name, and why."""


class AuthorityUnavailable(Exception):
    """There is no certificate for any name now, and why."""


@frozen
class _Rest:
    until: float
    failures: int


class CertificateRenewal(PeriodicTask):
    """Asks for one certificate after the other, and leaves each name that fails alone for a while.

    :param names: those that are to have one, just now.
    :param due: when a name's certificate is to be replaced, in the clock's seconds; None where there is none.
    :param issue: replaces it; fails with Refused or Unavailable.
    """

    def __init__(
        self,
        names: Callable[[], Iterable[str]],
        due: Callable[[str], float | None],
        issue: Callable[[str], Awaitable[None]],
        clock: IReactorTime,
    ) -> None:
        super().__init__(self.renew_due, CHECK_PERIOD, clock, "no certificates can be had", at_once=True)
        self._names = names
        self._due = due
        self._issue = issue
        self._clock = clock
        self._rests: dict[str, _Rest] = {}

    def startService(self) -> None:
        """Looks at once; called when the mirror listens, since an authority asks it for proof."""
        missing = [name for name in self._names() if self._due(name) is None]
        if missing:
            _log.warn(
                "no certificate is there yet for {names}: until it has come, https to them fails",
                names=", ".join(missing),
            )
        super().startService()

    async def renew_due(self) -> None:
        """Replaces what is due, of what is not left alone."""
        for name in self._names():
            due = self._due(name)
            if (due is None or due <= self._clock.seconds()) and not self._rests_now(name):
                await self._replace(name)

    def _rests_now(self, name: str) -> bool:
        rests = [self._rests[key] for key in (_ALL, name) if key in self._rests]
        return any(self._clock.seconds() < rest.until for rest in rests)

    async def _replace(self, name: str) -> None:
        try:
            await self._issue(name)
        except NameRefused as error:
            self._rests.pop(_ALL, None)
            _log.error(_NONE, name=name, pause=self._rest(name), error=str(error))
        except AuthorityUnavailable as error:
            pause = self._rest(_ALL)
            _log.error(
                "there are no certificates now, which are asked for again in {pause:g} s: {error}",
                pause=pause, error=str(error),
            )  # fmt: skip
        except CancelledError:
            raise
        except Exception as error:  # of an authority whose answers are none, or of ours
            _log.failure(_NONE, name=name, pause=self._rest(name), error=type(error).__name__)
        else:
            self._rests.pop(_ALL, None)
            self._rests.pop(name, None)
            _log.info("there is a new certificate for {name}", name=name)

    def _rest(self, key: str) -> float:
        failures = self._rests[key].failures if key in self._rests else 0
        pause = RETRY_DELAYS[min(failures, len(RETRY_DELAYS) - 1)]
        self._rests[key] = _Rest(self._clock.seconds() + pause, failures + 1)
        return pause
