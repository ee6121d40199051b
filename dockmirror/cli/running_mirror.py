"""A client of a running mirror, over HTTP."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve, frozen
from pydantic import ValidationError
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IAgent
from zope.interface import implementer

from ..app.endpoints import listening_ports
from ..app.upstream_stack import make_agent
from ..body.bodies import NoBody
from ..config.settings import ConfigurationError, Settings, UpstreamSettings
from ..headers import lines
from ..interfaces import Answer, IRegistry
from ..middleware.blob_fetch import ResumingRegistry
from ..oci.digest import Descriptor
from ..oci.errors import TimedOut, Unreachable
from ..oci.header_fields import CacheStatus
from ..oci.request import Blob, Manifest, RegistryRequest
from ..oci.token import Credentials
from ..upstream.agents import make_http_client
from ..upstream.checked_endpoint import threaded_resolver
from ..upstream.registry_client import (
    ChallengeCache,
    RegistryClient,
    TokenRelay,
    TrustedRealms,
    request_headers,
)
from ..upstream.upstream_client import (
    Header,
    UpstreamClient,
    describe_failure,
    find_root_cause,
)
from ..upstream.upstream_registry import BlobSizes, UpstreamRegistry

_NAME = "mirror"
_LOOPBACK = ("127.0.0.1", "::1")


def local_mirror(settings: Settings, ca_file: Path | None = None) -> UpstreamSettings:
    """Return the address of this machine's mirror, as its settings give it.

    :raises ConfigurationError: when the settings name no port.
    """
    port = next(listening_ports(settings), None)
    if port is None:
        raise ConfigurationError("listen: names no TCP port; give the mirror's address with --mirror")
    addresses = _LOOPBACK if port.is_on_all_addresses else (port.interface,)
    return _mirror_settings(
        f"{port.scheme}://{settings.domain}:{port.number}", ca_file, {settings.domain: addresses}
    )


def mirror_at(url: str, ca_file: Path | None = None) -> UpstreamSettings:
    """Return the address of a mirror on any machine.

    :raises ValueError: when the url is invalid.
    """
    try:
        mirror = _mirror_settings(url, ca_file, {})
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None
    if mirror.prefix:
        raise ValueError("expected an address such as http://mirror.example.com:8080, without a path")
    return mirror


def _mirror_settings(url: str, ca_file: Path | None, addresses: dict[str, Sequence[str]]) -> UpstreamSettings:
    fields = {"url": url, "proxy": "", "addresses": addresses, "ca_file": ca_file, "ip": "4 6"}
    return UpstreamSettings.model_validate(fields)


def open_mirror(mirror: UpstreamSettings, credentials: Credentials | None, reactor: Any) -> IRegistry:
    """Return the registry at the mirror's own host, reached over the network."""
    agent = make_agent(mirror, threaded_resolver(reactor), {}, lambda *_: None, reactor)
    return connect_to_mirror(mirror, agent, reactor, credentials)


def connect_to_mirror(
    mirror: UpstreamSettings, agent: IAgent, clock: IReactorTime, credentials: Credentials | None = None
) -> IRegistry:
    """Return the registry at the mirror's own host; blobs are resumed after an interruption and verified.

    :param credentials: log in to a mirror that admits only its users.
    """
    client = UpstreamClient(make_http_client(agent), clock, _NAME, mirror.url, mirror.timeout)
    challenge_cache = ChallengeCache(client, mirror.url, clock)
    registry_client = RegistryClient(mirror.url, client, challenge_cache, clock, _request_headers)
    upstream = UpstreamRegistry(
        client,
        registry_client,
        challenge_cache,
        TokenRelay(client, challenge_cache, TrustedRealms(mirror.url)),
        BlobSizes(clock),
    )
    reading = ResumingRegistry(upstream, clock)
    return _RunningMirror(reading, registry_client, client, mirror.url, credentials)


def _request_headers(request: RegistryRequest) -> Iterator[Header]:
    """Yield what a registry is sent, and what only a cache understands."""
    yield from request_headers(evolve(request, no_cache=False))
    if request.revalidate:
        yield "Cache-Control", "no-cache"


@implementer(IRegistry)
@frozen
class _RunningMirror:
    """A mirror's registry, with its answers to a HEAD and a name for its address in errors.

    :ivar registry: answers all other requests.
    """

    registry: IRegistry
    registry_client: RegistryClient
    client: UpstreamClient
    url: str
    credentials: Credentials | None

    async def fetch(self, request: RegistryRequest) -> Answer:
        request = evolve(request, credentials=self.credentials)
        try:
            if request.head and isinstance(request.target, Blob | Manifest):
                return await self._read_cache_status(request)
            return await self.registry.fetch(request)
        except Unreachable as error:
            if type(error) not in (Unreachable, TimedOut):  # it broke off, and is there
                raise
            cause = describe_failure(find_root_cause(error.__cause__ or error)).rstrip(".")
            raise Unreachable(
                f"no mirror answered at {self.url}: {cause}. Start it, or give its address with --mirror"
            ) from error

    async def _read_cache_status(self, request: RegistryRequest) -> Answer:
        """Answer a HEAD with the mirror's ``Cache-Status``, which clients of other registries ignore."""
        response = await self.registry_client.send(request)
        self.client.release(response)
        status = CacheStatus.parse(lines(response.headers, "Cache-Status"))
        return Answer(NoBody(Descriptor()), cache=status)
