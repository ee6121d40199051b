"""A body that continues where its upstream broke off."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IReactorTime
from twisted.internet.task import deferLater
from zope.interface import implementer

from ..interfaces import IBody
from ..oci.errors import Unreachable
from .consumers import SequentialConsumer

PAUSES = (0.0, 0.5, 1.0, 2.0, 4.0)
"""Seconds before each further attempt."""


@implementer(IBody)
class ResumingBody:
    """A body whose rest is fetched when it breaks off.

    :param reopen: opens the body from an offset on, or fails with a ``RegistryError``.
    """

    def __init__(self, body: IBody, reopen: Callable[[int], Awaitable[IBody]], clock: IReactorTime) -> None:
        self.descriptor = body.descriptor
        self._body = body
        self._reopen = reopen
        self._clock = clock

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        return Deferred.fromCoroutine(self._deliver(SequentialConsumer(consumer)))

    def discard(self) -> None:
        self._body.discard()

    async def _deliver(self, to: SequentialConsumer) -> None:
        body: IBody | None = self._body
        pauses = iter(PAUSES)
        try:
            while True:
                try:
                    if body is None:
                        body = await self._reopen(to.count)
                    return await body.deliver(to)
                except Unreachable:
                    pause, body = next(pauses, None), None
                    if pause is None or to.stopped:
                        raise
                    await deferLater(self._clock, pause)
                    if to.stopped:
                        raise
        finally:
            to.finish()
