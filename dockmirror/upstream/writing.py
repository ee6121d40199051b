"""The registry that is mirrored, changed: what clients send it, and what it says to that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import urlencode, urlsplit

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse
from zope.interface import implementer

from ..content.held import BytesContent
from ..headers import first
from ..interfaces import IContent, IWrites
from ..oci.errors import RangeInvalid, RegistryError, TimedOut, Unavailable
from ..oci.write import Upload, Uploads, Write, Written
from .client import FAILURES, Client, Header, Undecoded, died, root_cause
from .realms import origin
from .redirects import AUTHORIZATION, LIMIT, REDIRECTS, joined, target_of
from .refusals import REFUSALS_BY_TARGET, refusal, refused_elsewhere
from .sealed import Seals
from .sending import Sending
from .tokens import Handshake

COMMIT = 300.0
"""Seconds, at least, that an upstream has to answer to a whole body: it may look at all of it."""
_CONSENTS = {200, 201, 202, 204}
_KEEP_THE_BODY = REDIRECTS - {303}
_TRAVELLING = (
    "Docker-Content-Digest", "Docker-Upload-UUID", "OCI-Chunk-Max-Length", "OCI-Chunk-Min-Length",
    "OCI-Subject", "OCI-Tag", "Range", "RateLimit-Limit", "RateLimit-Remaining", "Warning",
)  # fmt: skip


@frozen
class _Asked:
    """A response and the address that gave it, or the address to which it sends what cannot be sent again."""

    response: IResponse
    url: str
    moved: bool
    elsewhere: str | None = None


@implementer(IWrites)
class Writing:
    """Asks one upstream, with the credentials that a client brings.

    :param url: the upstream's address, without a slash at the end.
    :param timeout: seconds that it may take nothing, or give no answer.
    :param sent: is told how many bytes of bodies have gone to it, each time.
    """

    def __init__(
        self,
        url: str,
        agent: IAgent,
        client: Client,
        handshake: Handshake,
        seals: Seals,
        clock: IReactorTime,
        timeout: float,
        sent: Callable[[int], None],
    ) -> None:
        self._url = url
        self._agent = Undecoded(agent)
        self._client = client
        self._handshake = handshake
        self._seals = seals
        self._clock = clock
        self._timeout = timeout
        self._sent = sent

    async def write(self, write: Write, body: IContent) -> Written:
        """See ``IWrites``."""
        asked = await self._ask(write, body)
        if asked.elsewhere is not None:
            return Written(307, self._upload(write, asked.elsewhere), upstream_status=asked.response.code)
        if asked.response.code not in _CONSENTS:
            raise await self._refusal(write, asked)
        self._client.release(asked.response)
        headers = tuple((n, value) for n in _TRAVELLING if (value := first(asked.response.headers, n)))
        code = asked.response.code
        return Written(code, self._location(write, asked), headers, upstream_status=code)

    async def _ask(self, write: Write, body: IContent) -> _Asked:
        """The upstream's answer, where redirects have led to.

        ``Authorization`` is for the upstream's own origin, and is dropped for good when another one is asked.
        """
        url, start = self._address(write), origin(self._url)
        headers = tuple(self._headers(write, body))
        for _ in range(LIMIT + 1):
            if origin(url) != start:
                headers = tuple(header for header in headers if header[0] != AUTHORIZATION)
            response, taken = await self._send(write.method, url, headers, body)
            if response.code not in _KEEP_THE_BODY:
                return _Asked(response, url, origin(url) != start)
            self._client.release(response)
            target = target_of(url, response)
            if taken and not isinstance(body, BytesContent):
                return _Asked(response, url, origin(url) != start, elsewhere=target)
            url = target
        raise Unavailable(f"the upstream redirects more than {LIMIT} times")

    def _address(self, write: Write) -> str:
        """Where to ask.

        :raises BlobUploadUnknown: when an upload is meant that never was.
        """
        if not isinstance(write.target, Upload):
            return self._url + write.path_and_query()
        (address,) = self._seals.open(write.target.repository, write.target.name)
        if not write.query:
            return address
        return f"{address}{'&' if '?' in address else '?'}{urlencode(write.query)}"

    def _headers(self, write: Write, body: IContent) -> Iterator[Header]:
        """The few headers that an upstream is sent."""
        if body.descriptor.media_type is not None:
            yield "Content-Type", body.descriptor.media_type
        if write.content_range is not None:
            yield "Content-Range", write.content_range
        if write.credentials is not None:
            yield AUTHORIZATION, write.credentials.header

    async def _send(
        self, method: str, url: str, headers: tuple[Header, ...], body: IContent
    ) -> tuple[IResponse, bool]:
        """The response, and whether any of the body was taken.

        Where there is no body, a connection that has died is tried once more.
        """
        raw = Headers()
        for key, value in headers:
            raw.addRawHeader(key, value)
        retried = body.descriptor.size != 0
        while True:
            late = _Late(self._timeout)
            sending = None
            if body.descriptor.size != 0:
                patience = self._timeout, max(self._timeout, COMMIT)
                sending = Sending(body, self._clock, patience, late.is_late, self._sent)
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
                if retried or not died(failure):
                    raise self._client.unreachable(url, failure) from failure
                retried = True
            else:
                return response, sending is not None and sending.begun
            finally:
                if sending is not None:
                    sending.end()

    async def _refusal(self, write: Write, asked: _Asked) -> RegistryError:
        error = await refusal(self._client, asked.response, write.target.unknown)
        if asked.moved and error.status in REFUSALS_BY_TARGET:
            return refused_elsewhere(error)
        self._handshake.learn(error.challenges)
        if isinstance(error, RangeInvalid):
            error.range = first(asked.response.headers, "Range")
            error.location = self._location(write, asked)
        return error

    def _location(self, write: Write, asked: _Asked) -> str | None:
        """Where it goes on, or what there is now; what the upstream says of that is not taken as it is.

        :raises Unavailable: when what it says is no address.
        """
        if isinstance(write.target, Uploads | Upload):
            if asked.response.code == 201:
                return None if write.digest is None else f"blobs/{write.digest}"
            told = (first(asked.response.headers, "Location") or "").strip()
            address = joined(asked.url, told)
            if address is not None:
                return self._upload(write, self._own(address))
            if told or isinstance(write.target, Uploads):
                raise Unavailable(
                    "the upstream has an upload go on at what is no address",
                    upstream_status=asked.response.code,
                )
            # What does not say is where it was.
            return None if write.method == "DELETE" else f"blobs/uploads/{write.target.name}"
        if asked.response.code == 201:
            reference = str(write.target).rpartition("/")[2]
            return f"manifests/{first(asked.response.headers, 'Docker-Content-Digest') or reference}"
        return None

    def _upload(self, write: Write, address: str) -> str:
        return f"blobs/uploads/{self._seals.seal(write.target.repository, address)}"

    def _own(self, address: str) -> str:
        """The same by https, where the upstream does not know that this is how it was asked."""
        parts, own = urlsplit(address), urlsplit(self._url)
        if (parts.scheme, own.scheme) == ("http", "https") and parts.netloc == own.netloc:
            return parts._replace(scheme="https").geturl()
        return address


class _Late:
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
