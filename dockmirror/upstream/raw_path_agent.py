"""Requests that go out by the very path that was asked for."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.web.client import URI, Agent
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer, IResponse


class RawPathAgent(Agent):
    """Twisted's agent, which puts a path together with ``urlunparse``.

    Newer Pythons write ``//a`` there as ``////a`` (CPython issue 67693); an address may be signed.
    """

    def _requestWithEndpoint(
        self,
        key: tuple[bytes, bytes, int],
        endpoint: IStreamClientEndpoint,
        method: bytes,
        parsedURI: URI,
        headers: Headers | None,
        bodyProducer: IBodyProducer | None,
        requestPath: bytes,
    ) -> Deferred[IResponse]:
        path = as_written(parsedURI)
        return super()._requestWithEndpoint(key, endpoint, method, parsedURI, headers, bodyProducer, path)


def as_written(uri: URI) -> bytes:
    """Path, parameters and query of an address, as they stood in it."""
    parameters = b";" + uri.params if uri.params else b""
    query = b"?" + uri.query if uri.query else b""
    return (uri.path or b"/") + parameters + query
