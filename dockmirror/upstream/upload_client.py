"""One request with a content as its body, until it is answered."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse

from ..interfaces import IBody
from ..oci.errors import RegistryError, TimedOut
from .body_producer import RequestBodyProducer
from .failures import FAILURES, connection_lost, root_cause
from .identity_encoding import IdentityEncodingAgent
from .upstream_client import Header, UpstreamClient

COMMIT = 300.0
"""Seconds, at least, that an upstream has to answer to a whole body: it may look at all of it."""


class UploadClient:
    """Submits contents to the servers of one upstream.

    :param client: says what it means where there is no answer.
    :param timeout: seconds that a server may take nothing, or give no answer.
    :param sent: is told how many bytes of bodies have gone, each time.
    """

    def __init__(
        self,
        agent: IAgent,
        client: UpstreamClient,
        clock: IReactorTime,
        timeout: float,
        sent: Callable[[int], None],
    ) -> None:
        self._agent = IdentityEncodingAgent(agent)
        self._client = client
        self._clock = clock
        self._timeout = timeout
        self._sent = sent

    async def submit(
        self, method: str, url: str, headers: tuple[Header, ...], body: IBody
    ) -> tuple[IResponse, bool]:
        """The response, and whether any of the body was taken.

        Where there is no body, a connection that has died is tried once more.
        """
        raw = Headers()
        for key, value in headers:
            raw.addRawHeader(key, value)
        retried = body.descriptor.size != 0
        while True:
            late = _UploadTimeout(self._timeout)
            sending = None
            if body.descriptor.size != 0:
                patience = self._timeout, max(self._timeout, COMMIT)
                sending = RequestBodyProducer(body, self._clock, patience, late.is_late, self._sent)
            try:
                response = await late.watched(
                    self._agent.request(method.encode(), url.encode(), raw, sending), self._clock, not sending
                )
            except FAILURES as failure:
                cause = root_cause(failure)
                if late.seconds is not None:
                    raise TimedOut(
                        f"the upstream did not take the request, or answer to it, within {late.seconds:g} s"
                    ) from failure
                if isinstance(cause, CancelledError):
                    raise CancelledError from failure
                if isinstance(cause, RegistryError):
                    raise cause from failure
                if retried or not connection_lost(failure):
                    raise self._client.unreachable(url, failure) from failure
                retried = True
            else:
                return response, sending is not None and sending.begun
            finally:
                if sending is not None:
                    sending.end()


class _UploadTimeout:
    """A question that takes too long.

    :ivar seconds: how long it has taken then.
    """

    def __init__(self, timeout: float) -> None:
        self.seconds: float | None = None
        self._timeout = timeout
        self._asked: Deferred[IResponse] | None = None

    def watched(self, asked: Deferred[IResponse], clock: IReactorTime, whole: bool) -> Deferred[IResponse]:
        """The question.

        :param whole: whether it has been put when this begins: one with a body looks to its own time.
        """
        self._asked = asked
        if whole:
            deadline = clock.callLater(self._timeout, self.is_late, self._timeout)

            def answered(result: object) -> object:
                if deadline.active():
                    deadline.cancel()
                return result

            asked.addBoth(answered)
        return asked

    def is_late(self, seconds: float) -> None:
        """Gives up."""
        self.seconds = seconds
        assert self._asked is not None
        self._asked.cancel()
