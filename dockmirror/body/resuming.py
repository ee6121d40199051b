"""A body that goes on where its upstream broke off."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IReactorTime
from twisted.internet.task import deferLater
from zope.interface import implementer

from ..interfaces import IBody
from ..oci.errors import Unreachable
from .sequential import SequentialConsumer

PAUSES = (0.0, 0.5, 1.0, 2.0, 4.0)
"""Seconds before each further attempt."""


@implementer(IBody)
class ResumingBody:
    """A content whose rest is asked for again when it breaks off.

    :param reopen: given how many bytes have come, opens the content from there on; fails with a
        ``RegistryError`` where that cannot be had.
    """

    def __init__(
        self, content: IBody, reopen: Callable[[int], Awaitable[IBody]], clock: IReactorTime
    ) -> None:
        self.descriptor = content.descriptor
        self._content = content
        self._reopen = reopen
        self._clock = clock

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """See ``IBody``."""
        return Deferred.fromCoroutine(self._deliver(SequentialConsumer(consumer)))

    def discard(self) -> None:
        """See ``IBody``."""
        self._content.discard()

    async def _deliver(self, to: SequentialConsumer) -> None:
        content: IBody | None = self._content
        pauses = iter(PAUSES)
        try:
            while True:
                try:
                    if content is None:
                        content = await self._reopen(to.count)
                    return await content.deliver(to)
                except Unreachable:
                    pause, content = next(pauses, None), None
                    if pause is None or to.stopped:
                        raise
                    await deferLater(self._clock, pause)
                    if to.stopped:
                        raise
        finally:
            to.finish()
