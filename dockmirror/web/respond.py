"""What a registry has to say, as a response: answers and errors."""

from __future__ import annotations

import re
from collections.abc import Coroutine
from typing import Any

from twisted.logger import Logger
from twisted.web.server import NOT_DONE_YET

from ..interfaces import Answer
from ..oci.challenge import Challenge, find_challenge
from ..oci.errors import RegistryError
from ..oci.etag import etag
from ..oci.link import write_next
from ..oci.ranges import unsatisfied
from ..oci.write import allowed
from .client import client_of
from .exchange import Request
from .later import answered_by

_log = Logger()
_UNFIT = re.compile(r"[^\t -~]")


def respond(request: Request, answer: Coroutine[Any, Any, Answer]) -> int:
    """Writes what comes of it; cancels it when the client leaves."""
    return answered_by(request, _respond(request, answer))


def refuse(request: Request, error: RegistryError) -> int:
    """Answers with an error; nothing has been written yet."""
    request.upstream_status = error.upstream_status
    _clear(request)
    _common(request)
    if error.status == 401:
        _set(request, "WWW-Authenticate", str(_challenge(request, error)))
    if error.status == 405:
        _set(request, "Allow", _allowed(request))
    if error.retry_after is not None:
        _set(request, "Retry-After", error.retry_after)
    if error.status == 416 and error.content_size is not None:
        _set(request, "Content-Range", unsatisfied(error.content_size))
    for name, value in (("Range", error.range), ("Location", error.location)):
        if value is not None:
            _set(request, name, value)
    request.refuse(error)
    return NOT_DONE_YET


async def _respond(request: Request, coming: Coroutine[Any, Any, Answer]) -> None:
    """Tells a client why not, unless it has left, or a body has begun: that is cut off, never completed."""
    try:
        await _deliver(request, await coming)
    except Exception as error:
        if request.cut_off:
            return
        if not isinstance(error, RegistryError):
            raise
        if request.startedWriting:
            _log.warn("{path}: cut off: {error}", path=request.path.decode("ascii"), error=str(error))
            request.abort()
        else:
            refuse(request, error)


async def _deliver(request: Request, answer: Answer) -> None:
    request.upstream_status = answer.upstream_status
    _write_head(request, answer)
    if request.method == b"HEAD" or answer.status in (301, 304, 307):
        answer.content.discard()
    else:
        await answer.content.deliver(client_of(request))
    if not request.cut_off:
        request.finish()


def _write_head(request: Request, answer: Answer) -> None:
    request.setResponseCode(answer.status)
    _common(request)
    descriptor = answer.content.descriptor
    named: list[tuple[str, object]] = [*answer.headers]
    if answer.status != 304:
        named += [("Content-Type", descriptor.media_type), ("Content-Length", descriptor.size)]
        named += [("Content-Range", answer.content_range), ("Location", answer.location)]
    if descriptor.digest is not None:
        named += [("Docker-Content-Digest", descriptor.digest), ("ETag", etag(descriptor.digest))]
        named += [("Accept-Ranges", "bytes")]
    if answer.next_page is not None:
        named += [("Link", write_next(request.path.decode("ascii"), answer.next_page))]
    written: set[str] = set()
    for name, value in named:
        if value is not None:
            _set(request, name, str(value), again=name in written)
            written.add(name)


def _set(request: Request, name: str, value: str, *, again: bool = False) -> None:
    """A field, of what may stand in one: an upstream's words are in some of them.

    :param again: whether it is a further line of the same field.
    """
    put = request.responseHeaders.addRawHeader if again else request.setHeader
    put(name, _UNFIT.sub("?", value))


def _common(request: Request) -> None:
    _set(request, "Docker-Distribution-Api-Version", "registry/2.0")
    _set(request, "X-Content-Type-Options", "nosniff")  # a browser takes no blob for a page
    named = request.admitted is not None and request.admitted.user is not None
    if named or request.is_token or request.getHeader(b"Authorization") is not None:
        _set(request, "Cache-Control", "private, no-store")


def _allowed(request: Request) -> str:
    """The token service takes forms, too, unless it is one that was refused: then the upstream's does not."""
    if request.writable:
        return ", ".join(allowed(request.path))
    return "GET, HEAD, POST" if request.is_token and request.method != b"POST" else "GET, HEAD"


def _clear(request: Request) -> None:
    for name, _ in list(request.responseHeaders.getAllRawHeaders()):
        request.responseHeaders.removeHeader(name)


def _challenge(request: Request, error: RegistryError) -> Challenge:
    """The one challenge that clients are sent: ours, or Basic where the upstream knows nothing else."""
    scheme, host = (request.admitted.scheme, request.admitted.host) if request.admitted else ("https", "")
    basic, bearer = find_challenge(error.challenges, "Basic"), find_challenge(error.challenges, "Bearer")
    if basic is not None and bearer is None:
        return Challenge("Basic", {"realm": basic.get("realm") or host})
    parameters = {
        "realm": f"{scheme}://{host}/v2/auth",
        "service": host,
        "scope": " ".join(map(str, request.scopes)),
        "error": "" if bearer is None else bearer.get("error"),
    }
    return Challenge("Bearer", parameters)
