"""Registries' own times of push, by which a cool-down can decide about a tag that was never seen."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReactorTime
from zope.interface import Interface, implementer

from ..concurrency.caching import TTLCache
from ..oci.digest import Digest
from ..oci.errors import Unavailable
from ..oci.reference import Repository, Tag

if TYPE_CHECKING:
    from ..upstream.upstream_client import UpstreamClient

HUB_API = "https://hub.docker.com"
CACHE_SECONDS = 600.0
"""Seconds after which Docker Hub's API is asked about a tag again."""
_ANSWER_LIMIT = 1024 * 1024
_MOST = 10_000


class IPushTimes(Interface):
    """A registry's own times of push."""

    async def pushed(repository: Repository, tag: Tag, digest: Digest) -> float | None:
        """Return when the tag was pushed with that digest, or None if the registry does not say so.

        :raises RegistryError: when it does not answer.
        """


@implementer(IPushTimes)
class HubPushTimes:
    """Asks the API of Docker Hub, without credentials.

    Source: Docker Hub API, "Read repository tag".  Beyond its schema, answers have the tag's ``digest`` at
    the top, which older tags lack; public code that reads them agrees on this.
    """

    def __init__(self, client: UpstreamClient, clock: IReactorTime) -> None:
        self._client = client
        self._cached: TTLCache[tuple[Repository, Tag, Digest], tuple[float | None]] = TTLCache(clock, _MOST)

    async def pushed(self, repository: Repository, tag: Tag, digest: Digest) -> float | None:
        cached = self._cached.get((repository, tag, digest))
        if cached is None:
            namespace, _, name = str(repository).partition("/")
            path = f"/v2/namespaces/{namespace}/repositories/{name}/tags/{tag}"
            cached = (parse_push_time(await self._read(path), digest),)
            self._cached.put((repository, tag, digest), cached, CACHE_SECONDS)
        return cached[0]

    async def _read(self, path: str) -> bytes:
        response = await self._client.request("GET", f"{HUB_API}{path}", (("Accept", "application/json"),))
        if response.code not in (200, 404):
            self._client.release(response)
            raise Unavailable(f"the API of Docker Hub answered {response.code}")
        data = await self._client.read(response, _ANSWER_LIMIT)
        return data if response.code == 200 else b"{}"


def parse_push_time(answer: bytes, digest: Digest) -> float | None:
    """Return when a tag was pushed with that digest, or None if the answer does not say so."""
    try:
        fields = json.loads(answer)
        images = [each["digest"] for each in fields.get("images") or ()]
        named = fields.get("digest") or (images[0] if len(images) == 1 else None)
        pushed = datetime.fromisoformat(fields["tag_last_pushed"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if named != str(digest) or pushed.tzinfo is None or pushed.year == 1:  # Go's zero time
        return None
    return pushed.timestamp()
