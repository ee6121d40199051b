"""The well-known registries as they behave, as far as the mirror can tell (../shared/WIRE.md, the table)."""

from __future__ import annotations

from urllib.parse import urlsplit

from dockmirror.config.known_registries import KNOWN

from .fake_registry import Cdn, Open, Registry, Tokens
from .fakes import Reply, Seen, Server, World

USER, PASSWORD = "alice", "s3cret"
PRIVATE = "alice/private"
BUSYBOX = b'{"schemaVersion":2,"name":"busybox"}'
LAYER = bytes(range(256)) * 1000
HUB = "registry-1.docker.io"
AUTH = "auth.docker.io"
HUB_CDN = "production.cloudflare.docker.com"

SERVICES = {
    "docker": (f"https://{AUTH}/token", "registry.docker.io"),
    "quay": ("https://quay.io/v2/auth", "quay.io"),
    "gcr": ("https://gcr.io/v2/token", "gcr.io"),
    "ghcr": ("https://ghcr.io/token", "ghcr.io"),
    "ecr": ("https://public.ecr.aws/token/", "public.ecr.aws"),
    "gitlab": ("https://gitlab.com/jwt/auth", "container_registry"),
    "nvcr": ("https://nvcr.io/proxy_auth?scope=repository:a/b:pull,push", ""),
    "elastic": ("https://docker-auth.elastic.co/auth", "token-service"),
}
"""Realm and service of those that demand tokens; the rest let everybody in."""


class Internet(World):
    """Every registry of the table; each has ``team/image:1`` for all and ``alice/private:latest`` for alice.

    :ivar hub: Docker Hub, which has a network that delivers its blobs.
    :ivar layer: the digest of a layer that its ``library/busybox`` has.
    """

    def __init__(self) -> None:
        super().__init__()
        self.registries: dict[str, Registry] = {}
        for known in KNOWN:
            self.registries[known.name] = self._registry(known.name, known.url)
        self.hub = self.registries["docker"]
        self.busybox = self.hub.push("library/busybox", "latest", BUSYBOX)
        self.layer = self.hub.add("library/busybox", LAYER).rpartition("/")[2]
        self.servers[HUB_CDN] = Cdn(self.hub)

    @property
    def auth(self) -> Tokens:
        """Docker Hub's token service."""
        assert isinstance(self.hub.door, Tokens)
        return self.hub.door

    def _registry(self, name: str, url: str) -> Registry:
        host = urlsplit(url).netloc
        if host in self.servers:  # docker-staging is Docker Hub again
            return self.registries["docker"]
        realm, service = SERVICES.get(name, ("", ""))
        door = Tokens(realm, service, {USER: PASSWORD}, [PRIVATE]) if realm else Open()
        registry = Registry(door, f"https://{HUB_CDN}/blobs" if name == "docker" else None)
        registry.push("team/image", "1")
        registry.push(PRIVATE, "latest", BUSYBOX)
        self.servers[host] = registry
        if isinstance(door, Tokens):
            at = urlsplit(realm).netloc
            self.servers[at] = _with_tokens(door, self.servers.get(at))
        return registry


def _with_tokens(tokens: Tokens, rest: Server | None) -> Server:
    """A token service, on a host of its own or below the registry's."""
    path = urlsplit(tokens.realm).path

    def answer(seen: Seen) -> Reply:
        if seen.path == path:
            return tokens(seen)
        return rest(seen) if rest else Reply(404)

    return answer
