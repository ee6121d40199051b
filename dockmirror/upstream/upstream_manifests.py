"""Manifests, read whole before a byte of them is passed on: they are small, and they must be right."""

from __future__ import annotations

import json

from attrs import evolve
from twisted.web.iweb import IResponse

from ..body.in_memory import BytesBody, NoBody
from ..body.verified import CorruptContent
from ..headers import first
from ..interfaces import Answer
from ..oci.consent import head_consents
from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.errors import BrokenOff, Unavailable
from ..oci.etag import etag_matches
from ..oci.media import SIGNED, parse_references, signed_payload
from ..oci.request import Manifest, RegistryRequest
from .answer_headers import make_answer, told_digest, unchanged
from .refusals import is_web_page
from .registry_client import RegistryClient
from .upstream_client import UpstreamClient, length_of

LIMIT = 4 * 1024 * 1024
"""Bytes; clients take no larger manifest either."""


async def answer_manifest(
    asking: RegistryClient, client: UpstreamClient, request: RegistryRequest, target: Manifest
) -> Answer:
    """The manifest, byte for byte.

    A HEAD that the upstream redirects or does not offer, or whose answer lacks what clients insist on, is
    answered from a GET: crane fails without any of type, length and digest, containerd asks twice.
    That nothing has changed says enough; docker-registry says it without a digest.
    One that breaks off is asked for once more: half a manifest is of no use to anybody.

    :raises Corrupt: when it is not the one of that digest.
    """
    try:
        return await _answer(asking, client, request, target)
    except BrokenOff:
        return await _answer(asking, client, request, target)


async def _answer(
    asking: RegistryClient, client: UpstreamClient, request: RegistryRequest, target: Manifest
) -> Answer:
    if request.head:
        return await _head_answer(asking, client, request, target)
    followed = await asking.follow(request)
    response, descriptor = followed.response, _descriptor(followed.response, target)
    _check_page(client, response)
    if response.code == 304:
        answer = make_answer(request, response, NoBody(descriptor))
        return evolve(answer, consents=not followed.redirected)
    content = _right(await client.read(response, LIMIT), descriptor, target)
    proven = target.digest is not None or parse_references(content.data) is not None
    return evolve(make_answer(request, response, content), consents=proven)


async def _head_answer(
    asking: RegistryClient, client: UpstreamClient, request: RegistryRequest, target: Manifest
) -> Answer:
    response = await asking.head(request)
    if response is None:
        return await _head_by_get(asking, client, request, target)
    _check_page(client, response)
    client.release(response)
    told = Descriptor(first(response.headers, "Content-Type"), told_digest(response), length_of(response))
    if response.code == 304 and unchanged(request, told):
        return evolve(make_answer(request, response, NoBody(_descriptor(response, target))), consents=True)
    if response.code == 200 and told.media_type is not None and head_consents(told, target.digest):
        return evolve(make_answer(request, response, NoBody(told)), consents=True)
    return await _head_by_get(asking, client, request, target)


async def _head_by_get(
    asking: RegistryClient, client: UpstreamClient, request: RegistryRequest, target: Manifest
) -> Answer:
    asked = evolve(request, head=False, if_none_match=None)
    answer = await answer_manifest(asking, client, asked, target)
    descriptor = answer.body.descriptor
    status = 304 if etag_matches(request.if_none_match, descriptor.digest) else 200
    return evolve(answer, status=status, body=NoBody(descriptor))


def _check_page(client: UpstreamClient, response: IResponse) -> None:
    """:raises Unavailable: when it is a web page."""
    if is_web_page(response):
        client.release(response)
        raise Unavailable("the upstream answered with a web page", upstream_status=response.code)


def _right(body: bytes, told: Descriptor, target: Manifest) -> BytesBody:
    digest = told.digest or Digest.of(body)
    signed = told.media_type is not None and told.media_type.startswith(SIGNED)
    if not digest.matches(signed_payload(body) if signed else body):
        raise CorruptContent(f"the upstream's manifest is not {digest}")
    if told.digest is None and not _is_document(body):
        raise Unavailable("what the upstream sent is no manifest, or not all of it")
    return BytesBody(body, Descriptor(told.media_type, digest, len(body)))


def _is_document(body: bytes) -> bool:
    """Whether this is a whole one, where there is no digest to tell."""
    try:
        return isinstance(json.loads(body), dict)
    except (ValueError, RecursionError):
        return False


def _descriptor(response: IResponse, target: Manifest) -> Descriptor:
    """What the response tells; a digest that was asked for outweighs one that is told."""
    return Descriptor(
        first(response.headers, "Content-Type"), target.digest or told_digest(response), length_of(response)
    )
