"""Redirects, followed here and not by the client.

An upstream's blobs lie on another host, whose address is signed and ends; some of those refuse a
request that carries ``Authorization``, and none of them has any business with it.
"""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit

from attrs import frozen
from twisted.web.iweb import IResponse

from ..headers import first
from ..oci.errors import Unavailable
from .trusted_realms import origin
from .upstream_client import Header, UpstreamClient

LIMIT = 5
REDIRECTS = {301, 302, 303, 307, 308}
AUTHORIZATION = "Authorization"


@frozen
class FinalResponse:
    """A response and the address that gave it.

    :ivar moved: whether that is another origin than was asked.
    :ivar redirected: whether it is another address at all.
    """

    response: IResponse
    url: str
    moved: bool
    redirected: bool


async def follow_redirects(
    client: UpstreamClient, method: str, url: str, headers: tuple[Header, ...]
) -> FinalResponse:
    """Asks, and goes where it is sent, at most five times; the method stays what it was.

    ``Authorization`` is dropped for good at the first change of origin.

    :raises Unavailable: when the redirects do not end, or lead nowhere.
    :raises Unreachable: when a server on the way gives no answer.
    """
    start = url
    for hops in range(LIMIT + 1):
        response = await client.request(method, url, headers)
        if response.code not in REDIRECTS:
            return FinalResponse(response, url, origin(url) != origin(start), hops > 0)
        client.release(response)
        target = redirect_target(url, response)
        if origin(target) != origin(url):
            headers = tuple(header for header in headers if header[0] != AUTHORIZATION)
        url = target
    raise Unavailable(f"the upstream redirects more than {LIMIT} times")


def redirect_target(url: str, response: IResponse) -> str:
    """The address that a redirect leads to.

    :raises Unavailable: when it leads nowhere.
    """
    target = resolve_location(url, (first(response.headers, "Location") or "").strip())
    if target is None:
        raise Unavailable("the upstream redirects to what is no address", upstream_status=response.code)
    return target


def resolve_location(url: str, location: str) -> str | None:
    """The address that a ``Location`` means; None where it means none."""
    try:
        target = urljoin(url, location).partition("#")[0]
        parts = urlsplit(target)
        _ = parts.port
    except ValueError:
        return None
    is_address = parts.scheme in ("http", "https") and parts.hostname and parts.username is None
    is_written = location and target.isascii() and target.isprintable() and " " not in target
    return target if is_address and is_written else None
