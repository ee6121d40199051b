"""Responses as answers: which headers travel, and when there is nothing new to tell."""

from __future__ import annotations

from twisted.web.iweb import IResponse

from ..body.in_memory import NoBody
from ..headers import first
from ..interfaces import Answer, IBody
from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.errors import DigestInvalid
from ..oci.etag import etag_matches
from ..oci.request import RegistryRequest

_TRAVELLING = (
    "ETag",
    "Last-Modified",
    "OCI-Filters-Applied",
    "RateLimit-Limit",
    "RateLimit-Remaining",
    "Warning",
)


def make_answer(request: RegistryRequest, response: IResponse, content: IBody) -> Answer:
    """The answer that brings this content, or just tells of it where the client asked for no more."""
    told = etag_matches(request.if_none_match, content.descriptor.digest)
    if request.head or told or response.code == 304:
        content.discard()
        content = NoBody(content.descriptor)
    status = 304 if told or response.code == 304 else 206 if response.code == 206 else 200
    headers = tuple((name, value) for name in _TRAVELLING if (value := first(response.headers, name)))
    return Answer(content, status, headers=headers, upstream_status=response.code)


def told_digest(response: IResponse) -> Digest | None:
    """The digest that the response names; None where it names none."""
    try:
        return Digest.parse(first(response.headers, "Docker-Content-Digest") or "")
    except DigestInvalid:
        return None


def unchanged(request: RegistryRequest, told: Descriptor) -> bool:
    """Whether a 304 is of the content that the request names; it need not name the digest itself."""
    return request.if_none_match is not None and (
        told.digest is None or etag_matches(request.if_none_match, told.digest)
    )
