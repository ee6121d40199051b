"""Requests that a coroutine answers."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.web.server import NOT_DONE_YET

from ..http.server_request import ServerRequest


def render_coroutine(request: ServerRequest, answering: Coroutine[Any, Any, None]) -> int:
    """Has it answer; it is cancelled when the client leaves.

    What it fails with is a failure of the mirror: errors that clients are told of are answered within.
    """
    running: Deferred[None]
    request.notifyFinish().addErrback(lambda _: running.cancel())
    running = Deferred.fromCoroutine(answering)
    running.addErrback(lambda failure: failure.trap(CancelledError))
    running.addErrback(request.processingFailed)
    running.addErrback(lambda _: None)
    return NOT_DONE_YET
