"""HTTP as it stands on the wire: treq without what it does to addresses, bytes and cookies by itself."""

from __future__ import annotations

from http.cookiejar import DefaultCookiePolicy

from hyperlink import URL
from treq.client import HTTPClient
from treq.cookies import IndexableCookieJar
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer


@implementer(IAgent)
class IdentityEncodingAgent:
    """Asks for bytes as they are stored, and gives them on as they come.

    treq asks for gzip beside whatever is asked, and decodes what is labelled so; a blob whose CDN
    labels it ``gzip`` would arrive as other bytes than its digest names.
    """

    def __init__(self, agent: IAgent) -> None:
        self._agent = agent

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """See ``IAgent``."""
        plain = headers.copy() if headers else Headers()
        plain.setRawHeaders(b"Accept-Encoding", [b"identity"])
        return self._agent.request(method, uri, plain, bodyProducer).addCallback(_without_content_encoding)


def _without_content_encoding(response: IResponse) -> IResponse:
    response.headers.removeHeader(b"Content-Encoding")
    return response


@implementer(IBodyProducer)
class _Form:
    """A form, written at once: it is short."""

    def __init__(self, data: bytes) -> None:
        self.length = len(data)
        self._data = data

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._data)
        return succeed(None)

    def pauseProducing(self) -> None:
        """There is nothing left to write."""

    resumeProducing = stopProducing = pauseProducing


def http_client(agent: IAgent) -> HTTPClient:
    """treq without its decoding, and without cookies: one user's must not travel with another's request."""
    jar = IndexableCookieJar(policy=DefaultCookiePolicy(allowed_domains=[]))
    return HTTPClient(IdentityEncodingAgent(agent), jar, _Form)


class _AsWritten(URL):
    """At a host that is ASCII, which hyperlink would encode as if it were a name in another script.

    It refuses names with underscores, as containers have them, and fails at IPv6 addresses.
    """

    def to_uri(self) -> URL:
        """Only what follows the host may have to be encoded."""
        named = URL.from_text(self.replace(host="name").to_text())
        return named.to_uri().replace(host=self.host.lower())


def parse_url(url: str) -> URL:
    """:raises ValueError: when it is no URL."""
    parsed = URL.from_text(url)
    return _AsWritten.from_text(url) if parsed.host.isascii() else parsed
