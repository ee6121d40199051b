"""Redirects, followed here and not by the client.

An upstream's blobs lie on another host, whose address is signed and ends; some of those refuse a
request that carries ``Authorization``, and none of them has any business with it.
"""

from __future__ import annotations

from urllib.parse import SplitResult, urljoin, urlsplit

from attrs import frozen
from twisted.web.iweb import IResponse

from ..headers import first
from ..oci.errors import Unavailable
from .client import Client, Header
from .realms import origin

LIMIT = 5
_STATUSES = {301, 302, 303, 307, 308}
AUTHORIZATION = "Authorization"


@frozen
class Followed:
    """A response and the address that gave it; ``moved`` where that is another origin than was asked."""

    response: IResponse
    url: str
    moved: bool


async def follow(client: Client, method: str, url: str, headers: tuple[Header, ...]) -> Followed:
    """Asks, and goes where it is sent, at most five times; the method stays what it was.

    ``Authorization`` is dropped for good at the first change of origin.

    :raises Unavailable: when the redirects do not end, or lead nowhere.
    :raises Unreachable: when a server on the way gives no answer.
    """
    start = url
    for _ in range(LIMIT + 1):
        response = await client.ask(method, url, headers)
        if response.code not in _STATUSES:
            return Followed(response, url, origin(url) != origin(start))
        target = _target(url, response)
        client.release(response)
        if origin(target) != origin(url):
            headers = tuple(header for header in headers if header[0] != AUTHORIZATION)
        url = target
    raise Unavailable(f"the upstream redirects more than {LIMIT} times")


def _target(url: str, response: IResponse) -> str:
    location = first(response.headers, "Location")
    target = urljoin(url, location.strip()) if location else ""
    parts = _split(target)
    if (
        parts is None
        or parts.scheme not in ("http", "https")
        or not parts.hostname
        or parts.username is not None
    ):
        raise Unavailable("the upstream redirects to what is no address", upstream_status=response.code)
    return target.partition("#")[0]


def _split(target: str) -> SplitResult | None:
    try:
        parts = urlsplit(target)
        _ = parts.port
    except ValueError:
        return None
    return parts if target.isascii() and target.isprintable() and " " not in target else None
