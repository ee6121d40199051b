"""A body that reports when it was delivered whole."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..interfaces import IBody

_log = Logger()


@implementer(IBody)
class CompletionObserver:
    """Runs ``completed`` after the last byte; nobody waits for that, and its failure is only logged."""

    def __init__(self, content: IBody, completed: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.descriptor = content.descriptor
        self._content = content
        self._completed = completed

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """See ``IBody``."""
        return self._content.deliver(consumer).addCallback(self._complete)

    def discard(self) -> None:
        """See ``IBody``."""
        self._content.discard()

    def _complete(self, _: None) -> None:
        Deferred.fromCoroutine(self._completed()).addErrback(_failed)


def _failed(failure: Failure) -> None:
    _log.failure("what follows a delivery failed", failure=failure)
