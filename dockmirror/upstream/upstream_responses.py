"""Responses of an upstream: redirects followed, refusals turned into errors, successes into answers.

The mirror follows redirects, not the HTTP client: an upstream's blobs lie on another host, at signed URLs
that expire; some of these hosts reject a request with ``Authorization``, and none may see it.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urljoin, urlsplit

from attrs import frozen
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from ..body.bodies import NoBody
from ..headers import first, lines
from ..interfaces import Answer, IBody
from ..oci.digest import Descriptor, Digest
from ..oci.errors import (
    DigestInvalid,
    ErrorEntry,
    NameUnknown,
    RangeInvalid,
    RegistryError,
    Unavailable,
    UpstreamRefusal,
    parse_challenges,
)
from ..oci.header_fields import etag_matches, parse_age, parse_unsatisfied
from ..oci.request import Blob, Manifest, RegistryRequest
from .addresses import parse_origin
from .upstream_client import Header, UpstreamClient

MAX_REDIRECTS = 5
REDIRECT_STATUSES = {301, 302, 303, 307, 308}
AUTHORIZATION = "Authorization"


@frozen
class FinalResponse:
    """A response and its URL.

    :ivar is_other_origin: True if the origin differs from the first request's.
    :ivar is_redirected: True if the URL differs at all.
    :ivar is_unencrypted: True if a redirect has led from ``https`` to ``http``.
    """

    response: IResponse
    url: str
    is_other_origin: bool
    is_redirected: bool
    is_unencrypted: bool = False


async def follow_redirects(
    client: UpstreamClient, method: str, url: str, headers: tuple[Header, ...]
) -> FinalResponse:
    """Send a request and follow at most five redirects; the method stays the same.

    ``Authorization`` is dropped for good at the first change of origin.

    :raises Unavailable: when the redirects do not end, or are invalid.
    :raises Unreachable: when a server on the way does not respond.
    """
    start, is_unencrypted = url, False
    for count in range(MAX_REDIRECTS + 1):
        response = await client.request(method, url, headers)
        if response.code not in REDIRECT_STATUSES:
            is_other = parse_origin(url) != parse_origin(start)
            return FinalResponse(response, url, is_other, count > 0, is_unencrypted)
        client.release(response)
        target = resolve_redirect(url, response)
        is_unencrypted |= url.startswith("https:") and target.startswith("http:")
        if parse_origin(target) != parse_origin(url):
            headers = tuple(header for header in headers if header[0] != AUTHORIZATION)
        url = target
    raise Unavailable(f"the upstream redirects more than {MAX_REDIRECTS} times")


def resolve_location(url: str, location: str) -> str | None:
    """Return the URL that a ``Location`` means, or None if it is invalid."""
    try:
        target = urljoin(url, location).partition("#")[0]
        parts = urlsplit(target)
        _ = parts.port
    except ValueError:
        return None
    is_address = parts.scheme in ("http", "https") and parts.hostname and parts.username is None
    is_written = location and target.isascii() and target.isprintable() and " " not in target
    return target if is_address and is_written else None


def resolve_redirect(url: str, response: IResponse) -> str:
    """Return the URL that a redirect leads to.

    :raises Unavailable: when it is invalid.
    """
    target = resolve_location(url, (first(response.headers, "Location") or "").strip())
    if target is None:
        raise Unavailable("the upstream redirects to an invalid URL", upstream_status=response.code)
    return target


OTHER_HOST_REFUSALS = {401, 403}
"""The statuses that, from another server than the registry, say nothing about the registry's own decision."""
_REFUSAL_LIMIT = 64 * 1024
_FORWARDED_LENGTH = 1024
_FORWARDED_LISTS = ("Cache-Status", "Warning")
_FORWARDED_HEADERS = (
    "ETag",
    "Last-Modified",
    "OCI-Filters-Applied",
    "RateLimit-Limit",
    "RateLimit-Remaining",
)


async def read_refusal(
    client: UpstreamClient, response: IResponse, unknown: type[RegistryError] = NameUnknown
) -> RegistryError:
    """Return the error to raise for a response that is no success, after reading its body.

    :param unknown: the error that a bare 404 means.
    """
    headers = response.headers
    if not 400 <= response.code < 600:
        client.release(response)
        return Unavailable(
            f"the upstream answered {response.code}",
            upstream_status=response.code,
            from_other_host=_is_other_host(client, response),
        )
    try:
        body = await client.read(response, _REFUSAL_LIMIT)
    except RegistryError:
        body = b""
    if response.code == 416:
        size = parse_unsatisfied(first(headers, "Content-Range") or "")
        return RangeInvalid(content_size=size, upstream_status=416)
    return UpstreamRefusal(
        status=response.code,
        body=body,
        challenges=parse_challenges(lines(headers, "WWW-Authenticate")),
        retry_after=first(headers, "Retry-After"),
        unknown=unknown,
        from_other_host=_is_other_host(client, response),
    ).error()


def wrap_other_host_refusal(error: RegistryError) -> Unavailable:
    """Return an error for a refusal by a redirect's target, so that no client logs in because of it."""
    what = "the server that the upstream redirects to refused"
    wrapped = Unavailable(
        f"{what}: {error.summary}", upstream_status=error.upstream_status, from_other_host=True
    )
    wrapped.entries = (ErrorEntry(wrapped.code, f"{what}: {error}"),)
    return wrapped


def _is_other_host(client: UpstreamClient, response: IResponse) -> bool:
    return client.is_other_host(response.request.absoluteURI.decode())


def is_web_page(response: IResponse) -> bool:
    """Tell whether a response is a web page, or a file server's document, instead of JSON."""
    kinds = lines(response.headers, "Content-Type")
    return any(kind.partition(";")[0].strip().lower().endswith(("/html", "/xml", "+xml")) for kind in kinds)


def reject_web_page(client: UpstreamClient, response: IResponse) -> None:
    """:raises Unavailable: when the response is a web page."""
    if is_web_page(response):
        client.release(response)
        raise Unavailable("the upstream answered with a web page", upstream_status=response.code)


def make_answer(request: RegistryRequest, response: IResponse, body: IBody) -> Answer:
    """Return the answer with a body; without its body for a HEAD, or if the client has the content
    already.
    """
    is_unmodified = etag_matches(request.if_none_match, body.descriptor.digest)
    if request.head or is_unmodified or response.code == 304:
        body.discard()
        body = NoBody(body.descriptor)
    status = 304 if is_unmodified or response.code == 304 else 206 if response.code == 206 else 200
    return Answer(
        body,
        status,
        headers=tuple(_forwarded_headers(response.headers)),
        upstream_status=response.code,
        date=first(response.headers, "Date"),
        age=None if _is_immutable(request) else parse_age(first(response.headers, "Age")),
    )


def _is_immutable(request: RegistryRequest) -> bool:
    """Tell whether the content is requested by its digest, which no age makes outdated."""
    target = request.target
    return isinstance(target, Blob) or (isinstance(target, Manifest) and target.digest is not None)


def _forwarded_headers(headers: Headers) -> Iterator[Header]:
    """Yield the few of an upstream's headers that are passed on; to the lists, the mirror adds its member."""
    for name in _FORWARDED_HEADERS:
        if value := first(headers, name):
            yield name, value
    for name in _FORWARDED_LISTS:
        value = ", ".join(lines(headers, name))
        if value and len(value) <= _FORWARDED_LENGTH:
            yield name, value


def read_digest(response: IResponse) -> Digest | None:
    """Return the digest that the response reports; None if it reports none, or an invalid one."""
    try:
        return Digest.parse(first(response.headers, "Docker-Content-Digest") or "")
    except DigestInvalid:
        return None


def is_unchanged(request: RegistryRequest, reported: Descriptor) -> bool:
    """Tell whether a 304 is about the content that the request names; it may omit the digest."""
    return request.if_none_match is not None and (
        reported.digest is None or etag_matches(request.if_none_match, reported.digest)
    )
