"""What an upstream says instead of giving what was asked for."""

from __future__ import annotations

from twisted.web.iweb import IResponse

from ..headers import first, lines
from ..oci.challenge import parse_challenges
from ..oci.errors import NameUnknown, RangeInvalid, RegistryError, Unavailable, UpstreamRefusal
from ..oci.ranges import parse_unsatisfied
from .upstream_client import UpstreamClient

REFUSALS_BY_TARGET = {401, 403}
"""Of another server than the registry: they say nothing of what the registry would."""
_LIMIT = 64 * 1024


async def read_refusal(
    client: UpstreamClient, response: IResponse, unknown: type[RegistryError] = NameUnknown
) -> RegistryError:
    """The error to raise for a response that is no consent; its body is read.

    :param unknown: what a bare 404 means here.
    """
    headers = response.headers
    if not 400 <= response.code < 600:
        client.release(response)
        return Unavailable(
            f"the upstream answered {response.code}",
            upstream_status=response.code,
            from_other_host=_is_elsewhere(client, response),
        )
    try:
        body = await client.read(response, _LIMIT)
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
        from_other_host=_is_elsewhere(client, response),
    ).error()


def refusal_by_other_host(error: RegistryError) -> Unavailable:
    """What is told of a refusal by another server: whoever logged in for it would do so for nothing."""
    return Unavailable(
        f"where the upstream redirects to, it was refused: {error}",
        upstream_status=error.upstream_status,
        from_other_host=True,
    )


def _is_elsewhere(client: UpstreamClient, response: IResponse) -> bool:
    return client.is_other_host(response.request.absoluteURI.decode())


def is_web_page(response: IResponse) -> bool:
    """Whether this is a document for people, or of a file server, where a registry answers JSON."""
    kinds = lines(response.headers, "Content-Type")
    return any(kind.partition(";")[0].strip().lower().endswith(("/html", "/xml", "+xml")) for kind in kinds)
