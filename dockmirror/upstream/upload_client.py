"""Requests with a body to an upstream, until they are answered."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IAgent, IResponse

from ..interfaces import IBody
from ..oci.errors import RegistryError, TimedOut
from .agents import IdentityEncodingAgent
from .upload_transport import RequestBodyProducer
from .upstream_client import (
    FAILURES,
    Header,
    UpstreamClient,
    find_root_cause,
    is_connection_lost,
    make_headers,
)

COMMIT_TIMEOUT = 300.0
"""The least seconds in which an upstream must respond to a complete body, which it may verify first."""


class UploadClient:
    """Uploads bodies to the servers of one upstream.

    :param client: translates failures into errors.
    :param timeout: seconds in which a server must accept some bytes, or respond.
    :param on_sent: called with the size of each piece that was sent.
    """

    def __init__(
        self,
        agent: IAgent,
        client: UpstreamClient,
        clock: IReactorTime,
        timeout: float,
        on_sent: Callable[[int], None],
    ) -> None:
        self._agent = IdentityEncodingAgent(agent)
        self._client = client
        self._clock = clock
        self._timeout = timeout
        self._on_sent = on_sent

    async def upload(
        self, method: str, url: str, headers: tuple[Header, ...], body: IBody
    ) -> tuple[IResponse, bool]:
        """Return the response, and whether any of the body was consumed.

        A request without a body is retried once if its connection died.
        """
        has_body = body.descriptor.size != 0
        is_last_attempt = has_body
        while True:
            upload_timeout = _UploadTimeout(self._timeout)
            producer = None
            if has_body:
                timeouts = self._timeout, max(self._timeout, COMMIT_TIMEOUT)
                producer = RequestBodyProducer(
                    body, self._clock, timeouts, upload_timeout.expire, self._on_sent
                )
            try:
                response = await upload_timeout.watch(
                    self._agent.request(method.encode(), url.encode(), make_headers(headers), producer),
                    self._clock,
                    not has_body,
                )
            except FAILURES as failure:
                cause = find_root_cause(failure)
                if upload_timeout.seconds is not None:
                    seconds = f"{upload_timeout.seconds:g} s"
                    raise TimedOut(f"the upstream did not accept the request within {seconds}") from failure
                if isinstance(cause, CancelledError):
                    raise CancelledError from failure
                if isinstance(cause, RegistryError):
                    raise cause from failure
                if is_last_attempt or not is_connection_lost(failure):
                    raise self._client.translate_failure(url, failure) from failure
                is_last_attempt = True
            else:
                return response, producer is not None and producer.is_started
            finally:
                if producer is not None:
                    producer.stop_waiting()


class _UploadTimeout:
    """A timeout that cancels a request and remembers why.

    :ivar seconds: the time that was exceeded; None until then.
    """

    def __init__(self, timeout: float) -> None:
        self.seconds: float | None = None
        self._timeout = timeout
        self._responding: Deferred[IResponse] | None = None

    def watch(
        self, responding: Deferred[IResponse], clock: IReactorTime, is_sent: bool
    ) -> Deferred[IResponse]:
        """Watch a request until it has a response.

        :param is_sent: whether the request is complete; one with a body sets its own deadlines.
        """
        self._responding = responding
        if is_sent:
            deadline = clock.callLater(self._timeout, self.expire, self._timeout)

            def stop_timer(result: object) -> object:
                if deadline.active():
                    deadline.cancel()
                return result

            responding.addBoth(stop_timer)
        return responding

    def expire(self, seconds: float) -> None:
        """Cancel the request."""
        self.seconds = seconds
        assert self._responding is not None
        self._responding.cancel()
