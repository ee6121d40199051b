"""Redirects, followed by the mirror and not by the HTTP client.

An upstream's blobs lie on another host, at signed URLs that expire; some of these hosts reject a request with
``Authorization``, and none may see it.
"""

from __future__ import annotations

from attrs import frozen
from twisted.web.iweb import IResponse

from ..headers import first
from ..oci.errors import Unavailable
from .upstream_client import Header, UpstreamClient
from .urls import parse_origin, resolve_location

MAX_REDIRECTS = 5
REDIRECT_STATUSES = {301, 302, 303, 307, 308}
AUTHORIZATION = "Authorization"


@frozen
class FinalResponse:
    """A response and its URL.

    :ivar is_other_origin: whether the origin differs from the first request's.
    :ivar is_redirected: whether the URL differs at all.
    """

    response: IResponse
    url: str
    is_other_origin: bool
    is_redirected: bool


async def follow_redirects(
    client: UpstreamClient, method: str, url: str, headers: tuple[Header, ...]
) -> FinalResponse:
    """Send a request and follow at most five redirects; the method stays the same.

    ``Authorization`` is dropped for good at the first change of origin.

    :raises Unavailable: when the redirects do not end, or are invalid.
    :raises Unreachable: when a server on the way does not respond.
    """
    start = url
    for count in range(MAX_REDIRECTS + 1):
        response = await client.request(method, url, headers)
        if response.code not in REDIRECT_STATUSES:
            return FinalResponse(response, url, parse_origin(url) != parse_origin(start), count > 0)
        client.release(response)
        target = resolve_redirect(url, response)
        if parse_origin(target) != parse_origin(url):
            headers = tuple(header for header in headers if header[0] != AUTHORIZATION)
        url = target
    raise Unavailable(f"the upstream redirects more than {MAX_REDIRECTS} times")


def resolve_redirect(url: str, response: IResponse) -> str:
    """Return the URL that a redirect leads to.

    :raises Unavailable: when it is invalid.
    """
    target = resolve_location(url, (first(response.headers, "Location") or "").strip())
    if target is None:
        raise Unavailable("the upstream redirects to an invalid URL", upstream_status=response.code)
    return target
