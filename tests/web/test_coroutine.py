"""Requests that a coroutine answers: what becomes of it."""

# mypy: allow-untyped-calls

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from dockmirror.web.coroutine import render_coroutine


class Asked:
    """A request of which only what is used here is there.

    :ivar failures: what was told as a failure of the mirror.
    """

    def __init__(self) -> None:
        self.left: Deferred[None] = Deferred()
        self.failures: list[type[BaseException]] = []

    def notifyFinish(self) -> Deferred[None]:
        """See ``twisted.web.http.Request``."""
        return self.left

    def processingFailed(self, failure: Failure) -> Failure:
        """See ``twisted.web.server.Request``."""
        assert failure.type is not None
        self.failures.append(failure.type)
        return failure


def asked(answering: Coroutine[Any, Any, None]) -> Asked:
    """A request that is answered by that."""
    request = Asked()
    render_coroutine(request, answering)  # type: ignore[arg-type]
    return request


def test_a_client_that_leaves() -> None:
    """Is answered no more, and nothing is told of it."""
    seen: list[str] = []

    async def answering() -> None:
        try:
            await Deferred()
        except CancelledError:
            seen.append("cancelled")
            raise

    request = asked(answering())
    request.left.errback(Failure(ConnectionError()))
    assert (seen, request.failures) == (["cancelled"], [])


def test_a_failure() -> None:
    """Is the mirror's own."""

    async def answering() -> None:
        raise ValueError

    assert asked(answering()).failures == [ValueError]


def test_one_that_is_done() -> None:
    """Is not cancelled when the client leaves afterwards."""

    async def answering() -> None:
        return None

    request = asked(answering())
    request.left.errback(Failure(ConnectionError()))
    assert request.failures == []
