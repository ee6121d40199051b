"""New settings while the mirror runs."""

from __future__ import annotations

import signal
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..config.settings import ConfigurationError, Settings
from .cache import has_cache

AT_START = (
    *("listen", "certificates", "acme", "acme_directory", "acme_ca_file"),
    *("operations", "workers", "grace", "cache", "store", "store_endpoint", "store_days", "redirect"),
)
"""The settings that only a start reads."""
_log = Logger()


class SettingsReload(Service):
    """Reads the settings again at SIGHUP; those that are wrong change nothing.

    :ivar settings: those that are in force.
    :param read: gives the settings, or raises ConfigurationError.
    :param serve: puts settings into force for the requests that come, or raises ConfigurationError and has
        changed nothing.
    """

    def __init__(
        self,
        settings: Settings,
        read: Callable[[], Settings],
        serve: Callable[[Settings], Coroutine[Any, Any, None]],
        reactor: IReactorFromThreads,
    ) -> None:
        self.settings = settings
        self._read = read
        self._serve = serve
        self._reactor = reactor
        self._before: Any = None

    def startService(self) -> None:
        """Called in the main thread, when the reactor is about to run."""
        super().startService()
        self._before = signal.signal(signal.SIGHUP, self._signalled)

    def stopService(self) -> None:
        """The signal does again what it did before."""
        super().stopService()
        signal.signal(signal.SIGHUP, self._before)

    def _signalled(self, *_: object) -> None:
        self._reactor.callFromThread(lambda: Deferred.fromCoroutine(self.reload()).addErrback(_failed))

    async def reload(self) -> None:
        """Puts new settings into force, or says why not."""
        try:
            read = self._read()
            settings = read.model_copy(update=_of_the_start(self.settings, read))
            await self._serve(settings)
        except ConfigurationError as error:
            _log.error("the settings are as they were: {error}", error=str(error))
            return
        later = [key for key in (*AT_START, "cache_size") if getattr(read, key) != getattr(settings, key)]
        self.settings = settings
        if later:
            _log.warn("new settings are in force, at the next start also: {keys}", keys=", ".join(later))
        else:
            _log.info("new settings are in force")


def _of_the_start(began: Settings, read: Settings) -> dict[str, Any]:
    """The settings that stay as they are: whether there is a cache at all is one of them."""
    keys = AT_START if has_cache(read) == has_cache(began) else (*AT_START, "cache_size")
    return {key: getattr(began, key) for key in keys}


def _failed(failure: Failure) -> None:
    _log.failure("the settings could not be put into force", failure=failure)
