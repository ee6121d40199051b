"""A mirror of one registry, over a store in memory, and clients that pull through it."""

from __future__ import annotations

import json
from collections.abc import Coroutine, Sequence
from typing import Any
from urllib.parse import parse_qsl

from attrs import evolve
from twisted.internet.task import Clock

from dockmirror.body.bodies import BytesBody
from dockmirror.concurrency.backoff import RequestCircuitBreaker
from dockmirror.interfaces import Answer, IContentStore, IRegistry
from dockmirror.middleware.blob_fetch import ResumingRegistry
from dockmirror.middleware.failover import FallbackMirror, can_use_fallback
from dockmirror.oci.digest import Descriptor, Digest
from dockmirror.oci.errors import Unauthorized
from dockmirror.oci.media import EVERYTHING, OCI_MANIFEST
from dockmirror.oci.request import RegistryRequest, parse_target
from dockmirror.oci.token import MARKER, TokenRequest
from dockmirror.oci.write import WriteResult, parse_write
from dockmirror.pullthrough.authorization import GrantCache, PublicRepositories
from dockmirror.pullthrough.blobs import BlobCache, BlobRegistries
from dockmirror.pullthrough.generations import Generations, TombstoneFilter, Tombstones
from dockmirror.pullthrough.manifests import ManifestCache, TagLifetime
from dockmirror.pullthrough.pull_through import ListCache, LoginCache, PullThrough
from dockmirror.pullthrough.upstream_gateway import PushProbeBypass, UpstreamGateway
from dockmirror.pullthrough.write_through import WriteThrough

from ..answering import Recorder, now, watch
from ..store.memory import MemoryContents, MemoryDocuments, MemoryTags
from .downloads import MemoryDownloads
from .faulty import Faults, faulty
from .origin import Origin, user

CONFIG, LAYER = b"configuration", b"layer" * 100
NAME = "library/busybox"
TAG, PRIVATE = f"{NAME}/manifests/latest", "me/private/manifests/latest"
DAY = 24 * 3600.0
TTL, GRANTED, PATIENCE, STALE = 60.0, 300.0, 3.0, 7 * DAY
"""Seconds that a tag is fresh, a grant lasts, a slow upstream has, and stale content is served."""


class Store:
    """The contents of a store, which outlives its mirrors."""

    def __init__(self, clock: Clock) -> None:
        self.contents = MemoryContents()
        self.tags = MemoryTags(clock)
        self.documents = MemoryDocuments()
        self.downloads = MemoryDownloads(self.contents)
        self.faults = Faults()

    def evict(self, digest: Digest) -> None:
        self.contents.held.pop(digest, None)


class Mirror:
    """The pull-through cache of one upstream.

    :param others: are asked for contents that it cannot give.
    :param writable: whether clients may write through it.
    :ivar contents: what it holds.
    :ivar learns: whether what it gets without credentials everybody gets.
    """

    def __init__(
        self,
        origin: Any,
        clock: Clock | None = None,
        store: Store | None = None,
        entry: str = "docker",
        tag_ttl: float = 60.0,
        stale_while_revalidate: float = 0.0,
        keep_deleted_upstream: bool = False,
        others: Sequence[Origin] = (),
        writable: bool = False,
        registry: str = "docker.io",
    ) -> None:
        self.origin = origin
        self.clock = clock or _at_noon()
        self.store = store or Store(self.clock)
        self.learns = True
        faults = self.store.faults
        contents: IContentStore = faulty(self.store.contents, faults)
        tags = faulty(self.store.tags, faults)
        documents = faulty(self.store.documents, faults)
        deletions = self.deletions = Tombstones(documents, self.clock)
        changes = Generations(registry, documents, deletions, self.clock)
        contents = self.contents = TombstoneFilter(contents, deletions, self.clock)
        public = self.public = PublicRepositories(
            lambda _: entry, documents, self.clock, lambda _: self.learns
        )
        resting, grants, anonymous = (
            RequestCircuitBreaker(self.clock),
            GrantCache(self.clock),
            origin.anonymous,
        )
        if others:
            resting = RequestCircuitBreaker(self.clock, can_use_fallback)
            anonymous = FallbackMirror(anonymous, [other.anonymous for other in others], self.clock)
        if writable:
            deletions.expect(registry)
            self.writes = WriteThrough(origin, changes, contents, tags, grants)
        gateway = self.gateway = UpstreamGateway(
            origin, anonymous, grants, public, resting, self.clock, keep_deleted_upstream
        )
        relay = ResumingRegistry(gateway, self.clock)
        self.tokens = LoginCache(entry, gateway, documents, self.clock)
        self.registry: IRegistry = PullThrough(
            gateway,
            self.tokens,
            ManifestCache(
                changes,
                gateway,
                contents,
                tags,
                self.clock,
                TagLifetime(lambda _: tag_ttl, stale_while_revalidate),
            ),
            BlobCache(
                registry,
                gateway,
                BlobRegistries(relay, gateway, gateway),
                contents,
                self.store.downloads,
                changes,
            ),
            ListCache(lambda _: entry, gateway, documents, self.clock, lambda _: tag_ttl, changes),
        )

        if writable:
            self.registry = PushProbeBypass(self.registry, gateway)

    def restarted(self, **changes: Any) -> Mirror:
        """Return a mirror of the same upstream with the same store and empty memory."""
        return Mirror(self.origin, self.clock, self.store, **changes)

    def request(self, path: str, who: str | None = None, **details: Any) -> RegistryRequest:
        """Return a client's request; the path is relative to ``/v2/``."""
        target = parse_target(f"/v2/{path}".encode())
        asked = RegistryRequest(target, accept=EVERYTHING, credentials=None if who is None else user(who))
        return evolve(asked, **details)

    def ask(self, path: str, who: str | None = None, **details: Any) -> Answer:
        return now(self.registry.fetch(self.request(path, who, **details)))

    def get(self, path: str, who: str | None = None, **details: Any) -> bytes:
        return body(self.ask(path, who, **details))

    def later(self, path: str, who: str | None = None, **details: Any) -> list[Any]:
        """Send a request, and return a list that will contain its answer or error."""
        return watch(self.registry.fetch(self.request(path, who, **details)))

    def write(
        self, method: str, path: str, data: bytes = b"", who: str = "alice", kind: str = OCI_MANIFEST
    ) -> WriteResult:
        """Send a write, and return its result; the path is relative to ``/v2/``."""
        return now(self.write_later(method, path, data, who, kind))

    def write_later(
        self, method: str, path: str, data: bytes = b"", who: str = "alice", kind: str = OCI_MANIFEST
    ) -> Coroutine[Any, Any, WriteResult]:
        path, _, query = path.partition("?")
        write = parse_write(method, f"/v2/{path}".encode(), tuple(parse_qsl(query)))
        content = BytesBody(data, Descriptor(kind, None, len(data)))
        return self.writes.write(evolve(write, credentials=user(who)), content)

    def token(self, *scopes: str, **fields: str) -> str:
        pairs = [*(("scope", scope) for scope in scopes), *fields.items()]
        answer = now(self.tokens.token(TokenRequest.parse(pairs)))
        return str(json.loads(body(answer))["token"])

    def pull(self, name: str, who: str | None = None, tag: str = "latest") -> list[bytes]:
        """Pull a whole image as dockerd and containerd do: the manifest first, then its blobs."""
        head = self.ask(f"{name}/manifests/{tag}", who, head=True)
        manifest = self.get(f"{name}/manifests/{head.body.descriptor.digest}", who)
        fields = json.loads(manifest)
        blobs = [fields["config"], *fields["layers"]]
        return [manifest, *(self.get(f"{name}/blobs/{blob['digest']}", who) for blob in blobs)]

    def docker(self, name: str, tag: str = "latest") -> list[bytes]:
        """Pull an image as dockerd does: ``/v2/``, a token, and the image."""
        try:
            self.ask("")
        except Unauthorized:
            token = self.token(f"repository:{name}:pull")
            return self.pull(name, None if token == MARKER else token, tag)
        return self.pull(name, None, tag)


def body(answer: Answer) -> bytes:
    recorder = Recorder()
    now(answer.body.deliver(recorder))
    return recorder.data


def header(answer: Answer, name: str) -> str | None:
    """Return the value of a header, or None."""
    fields = (*answer.headers, *(answer.cache.headers() if answer.cache else ()))
    values = [value for key, value in fields if key == name]
    assert len(values) < 2
    return values[0] if values else None


def _at_noon() -> Clock:
    clock = Clock()
    clock.advance(1_700_000_000.0)
    return clock
