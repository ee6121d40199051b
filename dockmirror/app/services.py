"""Services that others are made of."""

from __future__ import annotations

import os

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.python.threadpool import ThreadPool

from ..http.server import HttpSite


class OrderedMultiService(MultiService):
    """Services of which each stops when all that came after it have."""

    def privilegedStartService(self) -> None:
        """:raises SystemExit: when one of them cannot listen, in a line that names the setting."""
        Service.privilegedStartService(self)
        for service in self:
            try:
                service.privilegedStartService()
            except (CannotListenError, OSError, OverflowError) as error:
                raise SystemExit(f"dockmirror: {service.name}: {_reason(error)}") from None

    def stopService(self) -> Deferred[None]:
        """Fires when the first has stopped."""
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        for service in reversed(list(self)):
            await maybeDeferred(service.stopService)


def _reason(error: Exception) -> str:
    """In the words of the system, with the file that it is about: of a UNIX socket that is its lock."""
    if not isinstance(error, OSError) or error.filename is None:
        return str(error)
    file = error.filename if error.filename2 is None else error.filename2
    return f"{os.fsdecode(file)}: {error.strerror}"


class DrainConnections(Service):
    """Lets running transfers finish, once nothing listens any more."""

    def __init__(self, site: HttpSite, grace: float) -> None:
        self._site = site
        self._grace = grace

    def stopService(self) -> Deferred[int]:
        """Fires when no connection is left, at the latest after the grace."""
        super().stopService()
        return self._site.connections.drain(self._grace)


class ThreadPoolService(Service):
    """Threads that are there as long as the service runs."""

    def __init__(self, pool: ThreadPool) -> None:
        self._pool = pool

    def startService(self) -> None:
        """Called when the reactor is about to run."""
        super().startService()
        self._pool.start()

    def stopService(self) -> None:
        """Returns when none is at work any more."""
        super().stopService()
        self._pool.stop()
