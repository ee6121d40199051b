"""Manifests, read whole before a byte of them is passed on: they are small, and they must be right."""

from __future__ import annotations

import json

from attrs import evolve
from twisted.web.iweb import IResponse

from ..content.held import BytesContent, absent
from ..content.verified import Corrupt
from ..headers import first
from ..interfaces import Answer
from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.errors import BrokenOff, DigestInvalid, Unavailable, Unsupported
from ..oci.media import SIGNED, signed_payload
from ..oci.request import Manifest, Request
from .answers import answer_of
from .asking import Asking
from .client import Client, length_of
from .refusals import is_page

LIMIT = 4 * 1024 * 1024
"""Bytes; clients take no larger manifest either."""


async def manifest_answer(asking: Asking, client: Client, request: Request, target: Manifest) -> Answer:
    """The manifest, byte for byte.

    A HEAD whose answer lacks what clients insist on, or that the upstream does not offer, is
    answered from a GET: crane fails without any of type, length and digest, containerd asks twice.
    That nothing has changed says enough; docker-registry says it without a digest.
    One that breaks off is asked for once more: half a manifest is of no use to anybody.

    :raises Corrupt: when it is not the one of that digest.
    """
    try:
        return await _answer(asking, client, request, target)
    except BrokenOff:
        return await _answer(asking, client, request, target)


async def _answer(asking: Asking, client: Client, request: Request, target: Manifest) -> Answer:
    try:
        response = await asking.ask(request)
    except Unsupported:
        if not request.head:
            raise
        return await _head_by_get(asking, client, request, target)
    descriptor = _descriptor(response, target)
    if is_page(response):
        client.release(response)
        raise Unavailable("the upstream answered with a web page", upstream_status=response.code)
    told = response.code == 304 or None not in (descriptor.media_type, descriptor.digest, descriptor.size)
    if request.head and not told:
        return await _head_by_get(asking, client, request, target)
    if request.head or response.code == 304:
        return answer_of(request, response, absent(descriptor))
    return answer_of(request, response, _right(await client.read(response, LIMIT), descriptor, target))


async def _head_by_get(asking: Asking, client: Client, request: Request, target: Manifest) -> Answer:
    answer = await manifest_answer(asking, client, evolve(request, head=False), target)
    return evolve(answer, content=absent(answer.content.descriptor))


def _right(body: bytes, told: Descriptor, target: Manifest) -> BytesContent:
    digest = told.digest or Digest.of(body)
    signed = told.media_type is not None and told.media_type.startswith(SIGNED)
    if not digest.matches(signed_payload(body) if signed else body):
        raise Corrupt(f"the upstream's manifest is not {digest}")
    if told.digest is None and not _is_document(body):
        raise Unavailable("what the upstream sent is no manifest, or not all of it")
    return BytesContent(body, Descriptor(told.media_type, digest, len(body)))


def _is_document(body: bytes) -> bool:
    """Whether this is a whole one, where there is no digest to tell."""
    try:
        return isinstance(json.loads(body), dict)
    except (ValueError, RecursionError):
        return False


def _descriptor(response: IResponse, target: Manifest) -> Descriptor:
    """What the response tells; a digest that was asked for outweighs one that is told."""
    return Descriptor(
        first(response.headers, "Content-Type"), target.digest or _told_digest(response), length_of(response)
    )


def _told_digest(response: IResponse) -> Digest | None:
    try:
        return Digest.parse(first(response.headers, "Docker-Content-Digest") or "")
    except DigestInvalid:
        return None
