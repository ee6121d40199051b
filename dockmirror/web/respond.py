"""Write a registry's answers and errors as HTTP responses, from resources and from filters before them."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from ..http.accel import accepts_accel
from ..http.server_request import ServerRequest, make_response_consumer
from ..interfaces import Answer
from ..oci.errors import Challenge, RegistryError, Unsupported, find_challenge
from ..oci.header_fields import CDN_LOOP, format_etag, format_next_page, format_unsatisfied, parse_hops
from ..oci.write import allowed_methods
from ..system.networks import NetworkAccess
from ..system.request_context import current_hops

_UNSAFE = re.compile(r"[^\t -~]")
_LOOP_FIELD = CDN_LOOP.lower()
_CHALLENGE_PATH = b"/.well-known/acme-challenge/"
FindProof = Callable[[str], Coroutine[Any, Any, bytes | None]]
_log = Logger()


def respond(request: ServerRequest, answer: Coroutine[Any, Any, Answer]) -> int:
    """Write the answer of a coroutine, or the error that it raises; cancel it when the client leaves."""
    return render_coroutine(request, _respond(request, answer))


def refuse(request: ServerRequest, error: RegistryError) -> int:
    """Write an error, as long as nothing of a response has been written."""
    request.upstream_status = error.upstream_status
    _clear_headers(request)
    _set_common_headers(request)
    if error.status == 401:
        _set(request, "WWW-Authenticate", str(_challenge(request, error)))
    if error.status == 405:
        _set(request, "Allow", _allowed_methods(request))
    if error.retry_after is not None:
        _set(request, "Retry-After", error.retry_after)
    if error.status == 416 and error.content_size is not None:
        _set(request, "Content-Range", format_unsatisfied(error.content_size))
    for name, value in (("Range", error.range), ("Location", error.location)):
        if value is not None:
            _set(request, name, value)
    if _may_want_page(request):
        from .pages.page import refuse_with_page

        refuse_with_page(request, error)
    else:
        request.refuse(error)
    return NOT_DONE_YET


def _may_want_page(request: ServerRequest) -> bool:
    """Return whether a browser may have sent this; clients of registries and the API are programs."""
    is_api = b"/v2/" in request.path + b"/" or request.path.startswith(b"/api/")
    return not is_api and "text/html" in ",".join(request.fields.get("accept", ()))


async def _respond(request: ServerRequest, answer: Coroutine[Any, Any, Answer]) -> None:
    """Deliver the answer; on failure send the error, or cut the response off if its body has begun."""
    current_hops.set(request.hops)
    try:
        await _deliver(request, await answer)
    except Exception as error:
        if request.is_cut_off or request.reason is not None:  # the client left, or the mirror cut it off
            return
        if not isinstance(error, RegistryError):
            raise
        if request.startedWriting:
            _log.warn("{path}: cut off: {error}", path=request.path.decode("ascii"), error=error.summary)
            request.reason = error.summary
            request.abort()
        else:
            refuse(request, error)


async def _deliver(request: ServerRequest, answer: Answer) -> None:
    request.upstream_status = answer.upstream_status
    _write_head(request, answer)
    if request.method == b"HEAD" or answer.status in (301, 304, 307):
        answer.body.discard()
    else:
        await answer.body.deliver(make_response_consumer(request))
    if not request.is_cut_off:
        request.finish()


def _write_head(request: ServerRequest, answer: Answer) -> None:
    request.setResponseCode(answer.status)
    _set_common_headers(request)
    descriptor = answer.body.descriptor
    named: list[tuple[str, object]] = []
    if descriptor.digest is not None:
        digest = str(descriptor.digest)
        named = [("Docker-Content-Digest", digest), ("ETag", format_etag(digest)), ("Accept-Ranges", "bytes")]
    fields: list[tuple[str, object]] = [*answer.headers, *(answer.cache.headers() if answer.cache else ())]
    if named:  # the digest is the entity tag, whatever the upstream says
        fields = [pair for pair in fields if pair[0] != "ETag"] + named
    if answer.status != 304:
        fields += [("Content-Type", descriptor.media_type), ("Content-Length", descriptor.size)]
        fields += [("Content-Range", answer.content_range), ("Location", answer.location)]
    if answer.age is not None and (answer.cache is None or answer.cache.age is None):
        fields += [("Age", int(answer.age))]
    if answer.next_page is not None:
        fields += [("Link", format_next_page(request.path.decode("ascii"), answer.next_page))]
    names: set[str] = set()
    for name, value in fields:
        if value is not None:
            _set(request, name, str(value), again=name in names)
            names.add(name)


def _set(request: ServerRequest, name: str, value: str, *, again: bool = False) -> None:
    """Set a header field, with unsafe characters replaced: some values are an upstream's own words.

    :param again: add another line of the same field instead of replacing it.
    """
    put = request.responseHeaders.addRawHeader if again else request.setHeader
    put(name, _UNSAFE.sub("?", value))


def _set_common_headers(request: ServerRequest) -> None:
    _set(request, "Docker-Distribution-Api-Version", "registry/2.0")
    _set(request, "X-Content-Type-Options", "nosniff")  # a browser takes no blob for a page
    has_user = request.admitted_client is not None and request.admitted_client.user is not None
    if has_user or request.is_token_request or request.getHeader(b"Authorization") is not None:
        _set(request, "Cache-Control", "private, no-store")


def _allowed_methods(request: ServerRequest) -> str:
    """Return the value of ``Allow``.

    The token service accepts forms as well, unless it refused one: then the upstream's accepts none.
    """
    if request.is_writable:
        return ", ".join(allowed_methods(request.path))
    return "GET, HEAD, POST" if request.is_token_request and request.method != b"POST" else "GET, HEAD"


def _clear_headers(request: ServerRequest) -> None:
    for name, _ in list(request.responseHeaders.getAllRawHeaders()):
        request.responseHeaders.removeHeader(name)


def _challenge(request: ServerRequest, error: RegistryError) -> Challenge:
    """Return the challenge for a client: the mirror's own, or Basic if the upstream offers nothing else."""
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
    """Let a coroutine answer the request; it is cancelled when the client leaves.

    The coroutine answers expected errors itself; an exception that leaves it is a fault of the mirror.
    """
    running: Deferred[None]

    def fail(failure: Failure) -> None:
        if not failure.check(CancelledError):
            request.processingFailed(failure)

    request.notifyFinish().addErrback(lambda _: running.cancel())
    running = Deferred.fromCoroutine(answering).addErrback(fail)
    return NOT_DONE_YET


def render_or_refuse(request: ServerRequest, answering: Coroutine[Any, Any, None]) -> int:
    """Let a coroutine answer the request, and write the ``RegistryError`` that it raises before it begins."""
    return render_coroutine(request, _answer_or_refuse(request, answering))


async def _answer_or_refuse(request: ServerRequest, answering: Coroutine[Any, Any, None]) -> None:
    try:
        await answering
    except RegistryError as error:
        refuse(request, error)


@implementer(IResource)
class RequestFilter:
    """Base class for filters that may reject a request before it reaches a resource."""

    isLeaf = False

    def __init__(self, resource: IResource) -> None:
        self.resource = resource

    def check(self, request: ServerRequest) -> IResource | None:
        """Return a resource that answers instead, or None to pass the request on.

        :raises RegistryError: to reject the request; the error is the response.
        """
        raise NotImplementedError

    def getChildWithDefault(self, name: bytes, request: ServerRequest) -> IResource:
        """Return the resource that answers: the filtered one, its replacement, or the rejection."""
        try:
            replacement = self.check(request)
        except RegistryError as error:
            return RefusalResource(error)
        if replacement is not None or self.resource.isLeaf:
            return replacement or self.resource
        return IResource(self.resource.getChildWithDefault(name, request))

    def putChild(self, path: bytes, child: IResource) -> None:
        raise NotImplementedError("children belong to a host")

    def render(self, request: ServerRequest) -> int:
        """Answer 404; never called, since every path has a segment."""
        return refuse(request, Unsupported(status=404))


class RefusalResource(Resource):
    """Answers every request with one error."""

    isLeaf = True

    def __init__(self, error: RegistryError) -> None:
        super().__init__()
        self._error = error

    def render(self, request: ServerRequest) -> int:
        return refuse(request, self._error)


class NetworkFilter(RequestFilter):
    """Lets only clients of the allowed networks pass, and records the client in the request."""

    def __init__(self, resource: IResource, access: NetworkAccess) -> None:
        super().__init__(resource)
        self._access = access

    def check(self, request: ServerRequest) -> None:
        peer = getattr(request.getClientAddress(), "host", None)
        request.peer = self._access.identify_client(peer, request.isSecure(), request.fields)
        self._access.check(request.peer)
        request.admitted_client = request.peer


class LoopFilter(RequestFilter):
    """Rejects requests that this mirror has sent itself, and records which mirrors the others have passed.

    :param mirror_id: the identifier of this mirror.
    """

    def __init__(self, resource: IResource, mirror_id: str) -> None:
        super().__init__(resource)
        self._mirror_id = mirror_id

    def check(self, request: ServerRequest) -> None:
        """:raises Unsupported: with status 508 (RFC 5842, 7.2)."""
        if _LOOP_FIELD not in request.fields:
            return
        request.hops = parse_hops(request.fields[_LOOP_FIELD])
        request.is_from_peer = bool(request.hops) and request.hops[-1].is_peer
        if any(hop.mirror == self._mirror_id for hop in request.hops):
            raise Unsupported(
                "loop: this mirror got its own request back; the 'url' of an upstream leads to the mirror"
                " that asked it",
                status=508,
            )


class AccelFilter(RequestFilter):
    """Marks requests whose files the proxy in front may send itself; the client must have been let in."""

    def check(self, request: ServerRequest) -> None:
        client = request.admitted_client
        request.may_accelerate = (
            client is not None and client.is_proxied and accepts_accel(request.method, request.fields)
        )


class HealthRoute(RequestFilter):
    """Answers ``/healthz`` on every host, and passes other requests on.

    Load balancers ask from arbitrary addresses and without one of the mirror's host names.  The answer says
    no more than a refusal would, so no access rule comes before it.
    """

    def __init__(self, resource: IResource) -> None:
        super().__init__(resource)
        self._health = HealthResource()

    def check(self, request: ServerRequest) -> IResource | None:
        return IResource(self._health) if request.path == b"/healthz" else None


class HealthResource(Resource):
    """Answers ``ok`` as long as the process answers at all."""

    isLeaf = True

    def render_GET(self, request: ServerRequest) -> bytes:
        request.setHeader("Content-Type", "text/plain; charset=utf-8")
        return b"ok"


class AcmeChallengeRoute(RequestFilter):
    """Answers HTTP-01 challenges (RFC 8555, 8.3) on every host, and passes other requests on.

    Certificate authorities do not publish the addresses that they ask from, so no access rule comes first.

    :param proof: returns the key authorization for a token, or None for an unknown token.
    :param find_shared: the same for the challenges of other mirrors; None without any.
    """

    def __init__(
        self,
        resource: IResource,
        proof: Callable[[str], bytes | None],
        find_shared: FindProof | None = None,
    ) -> None:
        super().__init__(resource)
        self._proof = proof
        self._find_shared = find_shared

    def check(self, request: ServerRequest) -> IResource | None:
        if not request.path.startswith(_CHALLENGE_PATH):
            return None
        token = request.path.removeprefix(_CHALLENGE_PATH).decode("ascii", "replace")
        proof = self._proof(token)
        if proof is None and self._find_shared is None:
            return None
        return IResource(KeyAuthorization(partial(self._find, token, proof)))

    async def _find(self, token: str, proof: bytes | None) -> bytes:
        if proof is None and self._find_shared is not None:
            proof = await self._find_shared(token)
        if proof is None:
            raise Unsupported("no challenge has this token", status=404)
        return proof


class KeyAuthorization(Resource):
    """Sends the key authorization of a challenge.

    :param find: returns it, or raises a ``RegistryError``.
    """

    isLeaf = True

    def __init__(self, find: Callable[[], Coroutine[Any, Any, bytes]]) -> None:
        super().__init__()
        self._find = find

    def render_GET(self, request: ServerRequest) -> int:
        return render_or_refuse(request, self._answer(request))

    async def _answer(self, request: ServerRequest) -> None:
        proof = await self._find()
        request.setHeader("Content-Type", "application/octet-stream")
        request.setHeader("Content-Length", str(len(proof)))
        request.write(proof)
        request.finish()
