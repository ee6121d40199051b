"""The registry that is mirrored, changed: what clients send it, and what it says to that."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlencode, urlsplit

from attrs import frozen
from twisted.web.iweb import IResponse
from zope.interface import implementer

from ..body.in_memory import BytesBody
from ..headers import first, lines
from ..interfaces import IBody, IWritableRegistry
from ..oci.errors import RangeInvalid, RegistryError, Unavailable
from ..oci.write import UploadSession, UploadTarget, Write, WriteResult
from .redirects import AUTHORIZATION, LIMIT, REDIRECTS, redirect_target, resolve_location
from .refusals import REFUSALS_BY_TARGET, read_refusal, refusal_by_other_host
from .signed_locations import LocationSigner
from .token_relay import ChallengeCache
from .trusted_realms import origin
from .upload_client import UploadClient
from .upstream_client import Header, UpstreamClient

_CONSENTS = {200, 201, 202, 204}
_KEEP_THE_BODY = REDIRECTS - {303}
_TRAVELLING = (
    "Docker-Content-Digest", "Docker-Upload-UUID", "OCI-Chunk-Max-Length", "OCI-Chunk-Min-Length",
    "OCI-Subject", "Range", "RateLimit-Limit", "RateLimit-Remaining", "Warning",
)  # fmt: skip


@frozen
class _UploadResponse:
    """A response and the address that gave it, or the address to which it sends what cannot be sent again."""

    response: IResponse
    url: str
    moved: bool
    elsewhere: str | None = None


@implementer(IWritableRegistry)
class RegistryWriter:
    """Asks one upstream, with the credentials that a client brings.

    :param url: the upstream's address, without a slash at the end.
    """

    def __init__(
        self,
        url: str,
        client: UpstreamClient,
        submitting: UploadClient,
        handshake: ChallengeCache,
        seals: LocationSigner,
    ) -> None:
        self._url = url
        self._client = client
        self._submitting = submitting
        self._handshake = handshake
        self._seals = seals

    async def write(self, write: Write, body: IBody) -> WriteResult:
        """See ``IWritableRegistry``."""
        asked = await self._ask(write, body)
        if asked.elsewhere is not None:
            return WriteResult(307, self._upload(write, asked.elsewhere), upstream_status=asked.response.code)
        if asked.response.code not in _CONSENTS:
            raise await self._refusal(write, asked)
        self._client.release(asked.response)
        headers = tuple((n, value) for n in _TRAVELLING if (value := first(asked.response.headers, n)))
        headers += tuple(("OCI-Tag", value) for value in lines(asked.response.headers, "OCI-Tag"))
        code = asked.response.code
        return WriteResult(code, self._location(write, asked), headers, upstream_status=code)

    async def _ask(self, write: Write, body: IBody) -> _UploadResponse:
        """The upstream's answer, where redirects have led to.

        ``Authorization`` is for the upstream's own origin, and is dropped for good when another one is asked.
        """
        url, start = self._address(write), origin(self._url)
        headers = tuple(self._headers(write, body))
        for _ in range(LIMIT + 1):
            if origin(url) != start:
                headers = tuple(header for header in headers if header[0] != AUTHORIZATION)
            response, taken = await self._submitting.submit(write.method, url, headers, body)
            if response.code not in _KEEP_THE_BODY:
                return _UploadResponse(response, url, origin(url) != start)
            self._client.release(response)
            target = redirect_target(url, response)
            if taken and not isinstance(body, BytesBody):
                return _UploadResponse(response, url, origin(url) != start, elsewhere=target)
            url = target
        raise Unavailable(f"the upstream redirects more than {LIMIT} times")

    def _address(self, write: Write) -> str:
        """Where to ask.

        :raises BlobUploadUnknown: when an upload is meant that never was.
        """
        if not isinstance(write.target, UploadSession):
            return self._url + write.path_and_query()
        (address,) = self._seals.verify(write.target.repository, write.target.name)
        if not write.query:
            return address
        return f"{address}{'&' if '?' in address else '?'}{urlencode(write.query)}"

    def _headers(self, write: Write, body: IBody) -> Iterator[Header]:
        """The few headers that an upstream is sent."""
        if body.descriptor.media_type is not None:
            yield "Content-Type", body.descriptor.media_type
        if write.content_range is not None:
            yield "Content-Range", write.content_range
        if write.credentials is not None:
            yield AUTHORIZATION, write.credentials.header

    async def _refusal(self, write: Write, asked: _UploadResponse) -> RegistryError:
        error = await read_refusal(self._client, asked.response, write.target.unknown)
        if asked.moved and error.status in REFUSALS_BY_TARGET:
            return refusal_by_other_host(error)
        self._handshake.learn(error.challenges)
        if isinstance(error, RangeInvalid):
            error.range = first(asked.response.headers, "Range")
            error.location = self._location(write, asked)
        return error

    def _location(self, write: Write, asked: _UploadResponse) -> str | None:
        """Where it goes on, or what there is now; what the upstream says of that is not taken as it is.

        :raises Unavailable: when what it says is no address.
        """
        if isinstance(write.target, UploadTarget | UploadSession):
            if asked.response.code == 201:
                return None if write.digest is None else f"blobs/{write.digest}"
            told = (first(asked.response.headers, "Location") or "").strip()
            address = resolve_location(asked.url, told)
            if address is not None:
                return self._upload(write, self._own(address))
            if told or isinstance(write.target, UploadTarget):
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
        return f"blobs/uploads/{self._seals.sign(write.target.repository, address)}"

    def _own(self, address: str) -> str:
        """The same by https, where the upstream does not know that this is how it was asked."""
        parts, own = urlsplit(address), urlsplit(self._url)
        if (parts.scheme, own.scheme) == ("http", "https") and parts.netloc == own.netloc:
            return parts._replace(scheme="https").geturl()
        return address
