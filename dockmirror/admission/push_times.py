"""The times at which tags were pushed, as Docker Hub states them; images' own claims are never read.

Source: Docker Hub API, "Get a specific repository tag": ``digest`` and ``tag_last_pushed``.
"""

from __future__ import annotations

import json
from datetime import datetime

from twisted.internet.interfaces import IReactorTime
from zope.interface import Interface, implementer

from ..concurrency.caching import TTLCache
from ..oci.digest import Digest
from ..oci.errors import RegistryError, Unavailable
from ..oci.reference import Repository, Tag
from ..upstream.upstream_client import UpstreamClient

HUB_API = "https://hub.docker.com"
CACHE_SECONDS = 600.0
"""Seconds after which the API is asked about a tag again."""
_LIMIT = 1024 * 1024
_MOST = 10_000


class IPushTimes(Interface):
    """A registry's own times of push."""

    async def pushed(repository: Repository, tag: Tag, digest: Digest) -> float | None:
        """Return when the tag was pushed with that digest, or None if the registry does not say so.

        :raises RegistryError: when it does not answer.
        """


@implementer(IPushTimes)
class HubPushTimes:
    """Asks the API of Docker Hub, without credentials."""

    def __init__(self, client: UpstreamClient, clock: IReactorTime) -> None:
        self._client = client
        self._cached: TTLCache[tuple[Repository, Tag, Digest], tuple[float | None]] = TTLCache(clock, _MOST)

    async def pushed(self, repository: Repository, tag: Tag, digest: Digest) -> float | None:
        cached = self._cached.get((repository, tag, digest))
        if cached is None:
            cached = (_parse(await self._read(f"/v2/repositories/{repository}/tags/{tag}"), digest),)
            self._cached.put((repository, tag, digest), cached, CACHE_SECONDS)
        return cached[0]

    async def _read(self, path: str) -> bytes:
        response = await self._client.request("GET", f"{HUB_API}{path}", (("Accept", "application/json"),))
        if response.code not in (200, 404):
            self._client.release(response)
            raise Unavailable(f"the API of Docker Hub answered {response.code}")
        data = await self._client.read(response, _LIMIT)
        return data if response.code == 200 else b"{}"


def _parse(data: bytes, digest: Digest) -> float | None:
    try:
        fields = json.loads(data)
        if fields.get("digest") != str(digest):
            return None
        return datetime.fromisoformat(fields["tag_last_pushed"]).timestamp()
    except (ValueError, KeyError, TypeError, AttributeError, RegistryError):
        return None
