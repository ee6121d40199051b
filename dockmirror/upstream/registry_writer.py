"""Pushes to an upstream, and the signed locations at which a client continues an upload.

An upstream names any URL as the location of an upload.  The client is given a path on the mirror's own host
that contains this URL; the mirror sends bytes and credentials to no URL that it has not signed itself, for
this upstream and this repository.
"""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator, Sequence
from hashlib import sha256
from urllib.parse import urlencode, urlsplit

from attrs import define, frozen
from twisted.web.iweb import IResponse
from zope.interface import implementer

from ..body.bodies import BytesBody
from ..headers import first, lines
from ..interfaces import IBody, IWritableRegistry
from ..oci.errors import BlobUploadUnknown, RangeInvalid, RegistryError, Unavailable
from ..oci.request import Repository
from ..oci.write import UploadSession, UploadTarget, Write, WriteResult
from .addresses import parse_origin
from .registry_client import ChallengeCache
from .upload_client import UploadClient
from .upstream_client import Header, UpstreamClient
from .upstream_responses import (
    AUTHORIZATION,
    MAX_REDIRECTS,
    OTHER_HOST_REFUSALS,
    REDIRECT_STATUSES,
    read_refusal,
    resolve_location,
    resolve_redirect,
    wrap_other_host_refusal,
)

_PURPOSE = "dockmirror: where an upload goes on"
_CONSENTS = {200, 201, 202, 204}
_BODY_REDIRECTS = REDIRECT_STATUSES - {303}
_FORWARDED_HEADERS = (
    "Docker-Content-Digest", "Docker-Upload-UUID", "OCI-Chunk-Max-Length", "OCI-Chunk-Min-Length",
    "OCI-Subject", "Range", "RateLimit-Limit", "RateLimit-Remaining", "Warning",
)  # fmt: skip


class LocationSigner:
    """Signs and verifies the upload locations of one upstream.

    :param keys: the first one signs, each verifies; processes that serve together share them.
    :param upstream: its name.
    """

    def __init__(self, keys: Sequence[bytes], upstream: str) -> None:
        self._keys = tuple(keys)
        self._upstream = upstream

    def sign(self, repository: Repository, *values: str) -> str:
        """Return a path segment that contains the values, valid for that repository only."""
        body = json.dumps(values, separators=(",", ":")).encode()
        return f"{_encode(body)}.{_encode(self._authenticate(self._keys[0], repository, body))}"

    def verify(self, repository: Repository, signed: str) -> tuple[str, ...]:
        """Return the signed values.

        :raises BlobUploadUnknown: when the signature is invalid, or for another repository or upstream.
        """
        body, code = map(_decode, signed.split(".")) if signed.count(".") == 1 else (b"", b"")
        if not any(
            hmac.compare_digest(code, self._authenticate(key, repository, body)) for key in self._keys
        ):
            raise BlobUploadUnknown("unknown upload; continue at the Location of the last response")
        return tuple(json.loads(body))

    def _authenticate(self, key: bytes, repository: Repository, body: bytes) -> bytes:
        signed = json.dumps([_PURPOSE, self._upstream, repository.name]).encode() + b"\n" + body
        return hmac.digest(key, signed, sha256)


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    try:
        return urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return b""


@frozen
class _UploadResponse:
    """A response and its URL; ``redirect_to`` is set if the body would have to be sent again."""

    response: IResponse
    url: str
    is_other_origin: bool
    redirect_to: str | None = None


@implementer(IWritableRegistry)
@define(eq=False)
class RegistryWriter:
    """Sends writes to one upstream, with the client's own credentials.

    :param url: the upstream's URL, without a slash at the end.
    """

    _url: str
    _client: UpstreamClient
    _upload_client: UploadClient
    _challenges: ChallengeCache
    _signer: LocationSigner

    async def write(self, write: Write, body: IBody) -> WriteResult:
        outcome = await self._send(write, body)
        response = outcome.response
        if outcome.redirect_to is not None:
            target = self._sign_location(write, outcome.redirect_to)
            return WriteResult(307, target, upstream_status=response.code)
        if response.code not in _CONSENTS:
            raise await self._read_refusal(write, outcome)
        self._client.release(response)
        headers = tuple((n, value) for n in _FORWARDED_HEADERS if (value := first(response.headers, n)))
        headers += tuple(("OCI-Tag", value) for value in lines(response.headers, "OCI-Tag"))
        location = self._make_location(write, outcome)
        return WriteResult(response.code, location, headers, upstream_status=response.code)

    async def _send(self, write: Write, body: IBody) -> _UploadResponse:
        """Send a write and follow redirects.

        ``Authorization`` is for the upstream's own origin, and is dropped for good at another one.
        """
        url, start = self._build_url(write), parse_origin(self._url)
        headers = tuple(self._headers(write, body))
        for _ in range(MAX_REDIRECTS + 1):
            if parse_origin(url) != start:
                headers = tuple(header for header in headers if header[0] != AUTHORIZATION)
            response, is_body_started = await self._upload_client.upload(write.method, url, headers, body)
            if response.code not in _BODY_REDIRECTS:
                return _UploadResponse(response, url, parse_origin(url) != start)
            self._client.release(response)
            target = resolve_redirect(url, response)
            if is_body_started and not isinstance(body, BytesBody):
                return _UploadResponse(response, url, parse_origin(url) != start, redirect_to=target)
            url = target
        raise Unavailable(f"the upstream redirects more than {MAX_REDIRECTS} times")

    def _build_url(self, write: Write) -> str:
        """Return the URL to send a write to.

        :raises BlobUploadUnknown: when it names an upload that does not exist.
        """
        if not isinstance(write.target, UploadSession):
            return self._url + write.path_and_query()
        (address,) = self._signer.verify(write.target.repository, write.target.name)
        if not write.query:
            return address
        return f"{address}{'&' if '?' in address else '?'}{urlencode(write.query)}"

    def _headers(self, write: Write, body: IBody) -> Iterator[Header]:
        """Yield the few headers that an upstream is sent."""
        if body.descriptor.media_type is not None:
            yield "Content-Type", body.descriptor.media_type
        if write.content_range is not None:
            yield "Content-Range", write.content_range
        if write.credentials is not None:
            yield AUTHORIZATION, write.credentials.header

    async def _read_refusal(self, write: Write, outcome: _UploadResponse) -> RegistryError:
        error = await read_refusal(self._client, outcome.response, write.target.unknown)
        if outcome.is_other_origin and error.status in OTHER_HOST_REFUSALS:
            return wrap_other_host_refusal(error)
        self._challenges.learn(error.challenges)
        if isinstance(error, RangeInvalid):
            error.range = first(outcome.response.headers, "Range")
            error.location = self._make_location(write, outcome)
        return error

    def _make_location(self, write: Write, outcome: _UploadResponse) -> str | None:
        """Return the location of the upload or of the created content; the upstream's own is never passed on.

        :raises Unavailable: when the upstream's location is not a URL.
        """
        if isinstance(write.target, UploadTarget | UploadSession):
            if outcome.response.code == 201:
                return None if write.digest is None else f"blobs/{write.digest}"
            location = (first(outcome.response.headers, "Location") or "").strip()
            upload_url = resolve_location(outcome.url, location)
            if upload_url is not None:
                return self._sign_location(write, self._upgrade_to_https(upload_url))
            if location or isinstance(write.target, UploadTarget):
                raise Unavailable(
                    "the upstream named an invalid upload location",
                    upstream_status=outcome.response.code,
                )
            # Without a Location the upload stays where it was.
            return None if write.method == "DELETE" else f"blobs/uploads/{write.target.name}"
        if outcome.response.code == 201:
            reference = str(write.target).rpartition("/")[2]
            return f"manifests/{first(outcome.response.headers, 'Docker-Content-Digest') or reference}"
        return None

    def _sign_location(self, write: Write, address: str) -> str:
        return f"blobs/uploads/{self._signer.sign(write.target.repository, address)}"

    def _upgrade_to_https(self, address: str) -> str:
        """Return an ``http`` URL of the upstream as ``https``, if the upstream does not know that it was
        asked so.
        """
        parts, own = urlsplit(address), urlsplit(self._url)
        if (parts.scheme, own.scheme) == ("http", "https") and parts.netloc == own.netloc:
            return parts._replace(scheme="https").geturl()
        return address
