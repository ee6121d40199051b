"""A mirror that runs, asked over HTTP as its clients ask it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from attrs import evolve
from pydantic import ValidationError
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IAgent
from zope.interface import implementer

from ..body.in_memory import NoBody
from ..config.settings import ConfigurationError, Settings, UpstreamSettings
from ..headers import first
from ..interfaces import Answer, IRegistry
from ..middleware.resuming_registry import ResumingRegistry
from ..oci.credentials import Credentials
from ..oci.descriptor import Descriptor
from ..oci.request import Blob, Manifest, RegistryRequest
from ..oci.token import TokenRequest
from ..upstream.registry_client import RegistryClient
from ..upstream.token_relay import ChallengeCache, TokenRelay, TrustedRealms
from ..upstream.upstream_blobs import BlobSizes
from ..upstream.upstream_client import UpstreamClient, make_http_client
from ..upstream.upstream_registry import UpstreamRegistry
from .ports import ports

_NAME = "mirror"
_LOOPBACK = ("127.0.0.1", "::1")
_EVERYWHERE = ("", "0.0.0.0", "::")  # noqa: S104


def address(settings: Settings, ca_file: Path | None = None) -> UpstreamSettings:
    """Where the mirror of these settings is reached on this machine.

    :raises ConfigurationError: when it listens on no port that they tell.
    """
    port = next(ports(settings), None)
    if port is None:
        raise ConfigurationError("listen: names no port on which the mirror could be asked")
    addresses = _LOOPBACK if port.interface in _EVERYWHERE else (port.interface,)
    return _at(f"{port.scheme}://{settings.domain}:{port.number}", ca_file, {settings.domain: addresses})


def address_at(url: str, ca_file: Path | None = None) -> UpstreamSettings:
    """A mirror anywhere.

    :raises ValueError: when that is no address of one.
    """
    try:
        return _at(url, ca_file, {})
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None


def _at(url: str, ca_file: Path | None, addresses: dict[str, Sequence[str]]) -> UpstreamSettings:
    fields = {"url": url, "proxy": "", "addresses": addresses, "ca_file": ca_file, "ip": "4 6"}
    return UpstreamSettings.model_validate(fields)


def connect_to_mirror(
    at: UpstreamSettings, agent: IAgent, clock: IReactorTime, credentials: Credentials | None = None
) -> IRegistry:
    """The mirror's own host; a blob that breaks off is gone on with, and all is verified.

    :param credentials: for a mirror that lets in only those who are named.
    """
    client = UpstreamClient(make_http_client(agent), clock, _NAME, at.url, at.timeout)
    handshake = ChallengeCache(client, at.url, clock)
    asking = RegistryClient(at.url, client, handshake, clock)
    upstream = UpstreamRegistry(
        client, asking, handshake, TokenRelay(client, handshake, TrustedRealms(at.url)), BlobSizes(clock)
    )
    return _WithCredentials(
        _CacheStatusReader(ResumingRegistry(upstream, clock), asking, client), credentials
    )


@implementer(IRegistry)
class _CacheStatusReader:
    """Answers a HEAD with the mirror's ``CacheParts-Status``, which is passed on from no other registry."""

    def __init__(self, registry: IRegistry, asking: RegistryClient, client: UpstreamClient) -> None:
        self._registry = registry
        self._asking = asking
        self._client = client

    async def fetch(self, request: RegistryRequest) -> Answer:
        """See ``IRegistry``."""
        if not (request.head and isinstance(request.target, Blob | Manifest)):
            return await self._registry.fetch(request)
        response = await self._asking.send(request)
        self._client.release(response)
        told = first(response.headers, "Cache-Status")
        return Answer(NoBody(Descriptor()), headers=(("Cache-Status", told),) if told else ())

    async def token(self, request: TokenRequest) -> Answer:
        """See ``IRegistry``."""
        return await self._registry.token(request)


@implementer(IRegistry)
class _WithCredentials:
    """Shows with each request who asks."""

    def __init__(self, registry: IRegistry, credentials: Credentials | None) -> None:
        self._registry = registry
        self._credentials = credentials

    async def fetch(self, request: RegistryRequest) -> Answer:
        """See ``IRegistry``."""
        return await self._registry.fetch(evolve(request, credentials=self._credentials))

    async def token(self, request: TokenRequest) -> Answer:
        """See ``IRegistry``."""
        return await self._registry.token(request)
