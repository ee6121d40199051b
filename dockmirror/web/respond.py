"""What a registry has to say, as a response: answers and errors."""

from __future__ import annotations

import re
from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.web.server import NOT_DONE_YET

from ..http.response_consumer import response_consumer
from ..http.server_request import ServerRequest
from ..interfaces import Answer
from ..oci.challenge import Challenge, find_challenge
from ..oci.errors import RegistryError
from ..oci.etag import format_etag
from ..oci.link import format_next_page
from ..oci.ranges import format_unsatisfied
from ..oci.write import allowed_methods

_log = Logger()
_UNFIT = re.compile(r"[^\t -~]")


def respond(request: ServerRequest, answer: Coroutine[Any, Any, Answer]) -> int:
    """Writes what comes of it; cancels it when the client leaves."""
    return render_coroutine(request, _respond(request, answer))


def refuse(request: ServerRequest, error: RegistryError) -> int:
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
        _set(request, "Content-Range", format_unsatisfied(error.content_size))
    for name, value in (("Range", error.range), ("Location", error.location)):
        if value is not None:
            _set(request, name, value)
    request.refuse(error)
    return NOT_DONE_YET


async def _respond(request: ServerRequest, coming: Coroutine[Any, Any, Answer]) -> None:
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


async def _deliver(request: ServerRequest, answer: Answer) -> None:
    request.upstream_status = answer.upstream_status
    _write_head(request, answer)
    if request.method == b"HEAD" or answer.status in (301, 304, 307):
        answer.body.discard()
    else:
        await answer.body.deliver(response_consumer(request))
    if not request.cut_off:
        request.finish()


def _write_head(request: ServerRequest, answer: Answer) -> None:
    request.setResponseCode(answer.status)
    _common(request)
    descriptor = answer.body.descriptor
    named: list[tuple[str, object]] = [*answer.headers]
    if answer.status != 304:
        named += [("Content-Type", descriptor.media_type), ("Content-Length", descriptor.size)]
        named += [("Content-Range", answer.content_range), ("Location", answer.location)]
    if descriptor.digest is not None:
        named += [("Docker-Content-Digest", descriptor.digest), ("ETag", format_etag(descriptor.digest))]
        named += [("Accept-Ranges", "bytes")]
    if answer.next_page is not None:
        named += [("Link", format_next_page(request.path.decode("ascii"), answer.next_page))]
    written: set[str] = set()
    for name, value in named:
        if value is not None:
            _set(request, name, str(value), again=name in written)
            written.add(name)


def _set(request: ServerRequest, name: str, value: str, *, again: bool = False) -> None:
    """A field, of what may stand in one: an upstream's words are in some of them.

    :param again: whether it is a further line of the same field.
    """
    put = request.responseHeaders.addRawHeader if again else request.setHeader
    put(name, _UNFIT.sub("?", value))


def _common(request: ServerRequest) -> None:
    _set(request, "Docker-Distribution-Api-Version", "registry/2.0")
    _set(request, "X-Content-Type-Options", "nosniff")  # a browser takes no blob for a page
    named = request.admitted_client is not None and request.admitted_client.user is not None
    if named or request.is_token or request.getHeader(b"Authorization") is not None:
        _set(request, "Cache-Control", "private, no-store")


def _allowed(request: ServerRequest) -> str:
    """The token service takes forms, too, unless it is one that was refused: then the upstream's does not."""
    if request.writable:
        return ", ".join(allowed_methods(request.path))
    return "GET, HEAD, POST" if request.is_token and request.method != b"POST" else "GET, HEAD"


def _clear(request: ServerRequest) -> None:
    for name, _ in list(request.responseHeaders.getAllRawHeaders()):
        request.responseHeaders.removeHeader(name)


def _challenge(request: ServerRequest, error: RegistryError) -> Challenge:
    """The one challenge that clients are sent: ours, or Basic where the upstream knows nothing else."""
    scheme, host = (
        (request.admitted_client.scheme, request.admitted_client.host)
        if request.admitted_client
        else ("https", "")
    )
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


def render_coroutine(request: ServerRequest, answering: Coroutine[Any, Any, None]) -> int:
    """Has it answer; it is cancelled when the client leaves.

    What it fails with is a failure of the mirror: errors that clients are told of are answered within.
    """
    running: Deferred[None]
    request.notifyFinish().addErrback(lambda _: running.cancel())
    running = Deferred.fromCoroutine(answering)
    running.addErrback(lambda failure: failure.trap(CancelledError))
    running.addErrback(request.processingFailed)
    running.addErrback(lambda _: None)
    return NOT_DONE_YET
