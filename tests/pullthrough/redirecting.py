"""Registries that redirect without looking, asked by the real client over a network in memory."""

# mypy: allow-untyped-calls

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Literal
from urllib.parse import quote

from attrs import define, field, frozen
from twisted.internet.task import Clock
from zope.interface import implementer

from dockmirror.interfaces import Answer, IRegistry
from dockmirror.oci.digest import Digest
from dockmirror.oci.media import OCI_MANIFEST
from dockmirror.oci.request import Blob, Manifest, RegistryRequest, parse_target, repository_of
from dockmirror.oci.token import TokenRequest

from ..fake_registry import error, ranged
from ..fakes import Reply, Seen, World
from ..stacks import upstream
from .origin import EVERYBODY, NOBODY

Redirects = Literal["everything", "nothing", "by turns"]
Target = Literal["honest", "page", "json", "forged", "down", "refusing"]


@frozen
class Consent:
    """Bytes of a repository that a client was given, or the registry's confirmation of them."""

    who: str
    repository: str
    digest: Digest
    at: float


@define
class RedirectingRegistry:
    """A registry, and the server that it redirects to.

    :ivar redirects: what the registry redirects, without looking at who asks, and for what.
    :ivar target: what that server gives: the contents that are ``there``, or something else to everybody.
    :ivar consents: all that was given, from the beginning.
    """

    host: str
    world: World
    clock: Clock
    redirects: Redirects = "nothing"
    target: Target = "honest"
    contents: dict[str, dict[Digest, bytes]] = field(factory=dict)
    there: dict[str, set[Digest]] = field(factory=dict)
    tags: dict[str, Digest] = field(factory=dict)
    readers: dict[str, set[str]] = field(factory=dict)
    consents: list[Consent] = field(factory=list)
    asked: list[str] = field(factory=list)
    _turns: Iterator[int] = field(factory=count)

    def __attrs_post_init__(self) -> None:
        self.world.servers[self.host] = self._answer
        self.world.servers[f"target.{self.host}"] = self._answer_elsewhere

    def put(self, repository: str, data: bytes, readers: set[str], tag: str | None = None) -> Digest:
        """Add a content to a repository of the registry, but not to its redirect target."""
        digest = Digest.of(data)
        self.contents.setdefault(repository, {})[digest] = data
        self.readers.setdefault(repository, set()).update(readers)
        if tag is not None:
            self.tags[repository] = digest
        return digest

    def take(self) -> list[str]:
        """Return the requests since the last call; ``>`` marks those to the redirect target."""
        asked, self.asked = self.asked, []
        return asked

    def _answer(self, seen: Seen) -> Reply:
        who = (seen.authorization or NOBODY).removeprefix("Bearer ")
        if seen.path == "/v2/":
            return Reply(200, b"{}")
        self.asked.append(f"{seen.method} {seen.path.removeprefix('/v2/')}")
        if self.redirects == "everything" or (self.redirects == "by turns" and next(self._turns) % 2):
            location = f"https://target.{self.host}{seen.path}?who={quote(who)}"
            return Reply(307, b"see there", (("Location", location),))
        target = parse_target(seen.path.encode())
        if not self.readers.get(str(repository_of(target)), set()) & {EVERYBODY, who}:
            return error(401, "UNAUTHORIZED", "log in", ("WWW-Authenticate", 'Basic realm="x"'))
        return self._given(seen, who, self.contents.get(str(repository_of(target)), {}).keys())

    def _answer_elsewhere(self, seen: Seen) -> Reply:
        self.asked.append(f"{seen.method} > {seen.path.removeprefix('/v2/')}")
        if seen.method == "HEAD":
            return Reply(403, b"")  # the address was signed for a GET
        if self.target == "page":
            return Reply(200, b"<html>Log in</html>", (("Content-Type", "text/html"),))
        if self.target == "json":
            return Reply(200, b'{"login":"required"}', (("Content-Type", "application/json"),))
        if self.target == "down":
            return Reply(503)
        if self.target == "refusing":
            return Reply(403)
        repository = str(repository_of(parse_target(seen.path.encode())))
        if self.target == "forged":
            known = next((data for each in self.contents.values() for digest, data in each.items()
                          if str(digest) in seen.path), b"?")  # fmt: skip
            return ranged(seen, bytes(len(known)), (("Content-Type", OCI_MANIFEST),))
        who = dict(seen.query)["who"]
        return self._given(seen, who, self.there.get(repository, set()))

    def _given(self, seen: Seen, who: str, has: object) -> Reply:
        target = parse_target(seen.path.encode())
        repository = str(repository_of(target))
        if not isinstance(target, Manifest | Blob):
            return Reply(200, b'{"tags":["latest"]}', (("Content-Type", "application/json"),))
        digest = target.digest or self.tags.get(repository)
        if digest is None or digest not in has:  # type: ignore[operator]
            return error(404, target.unknown.code, f"{seen.method}: nothing here", ("X", "y"))
        self.consents.append(Consent(who, repository, digest, self.clock.seconds()))
        told = (("Docker-Content-Digest", str(digest)), ("ETag", f'"{digest}"'))
        if seen.header("If-None-Match") == f'"{digest}"':
            return Reply(304, b"", told)
        data = self.contents[repository][digest]
        kind = OCI_MANIFEST if isinstance(target, Manifest) else "application/octet-stream"
        return ranged(seen, data, (*told, ("Content-Type", kind)))


@implementer(IRegistry)
class Origin:
    """The real upstream client of such a registry."""

    def __init__(self, registry: RedirectingRegistry) -> None:
        self._upstream = upstream(registry.world.agent, registry.clock, f"https://{registry.host}")
        self.anonymous: IRegistry = self._upstream

    async def fetch(self, request: RegistryRequest) -> Answer:
        return await self._upstream.fetch(request)

    async def token(self, request: TokenRequest) -> Answer:
        raise NotImplementedError
