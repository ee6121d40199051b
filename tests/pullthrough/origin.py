"""A registry as the mirror is told of it: who may have what, and whether it says anything at all."""

from __future__ import annotations

import json
from collections.abc import Iterable

from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from zope.interface import implementer

from dockmirror.body.bodies import BytesBody, NoBody, collect, json_body
from dockmirror.interfaces import Answer, IBody, IRegistry, IUpstream, IWritableRegistry
from dockmirror.oci.digest import Descriptor, Digest
from dockmirror.oci.errors import BlobUnknown, Challenge, ManifestUnknown, RegistryError, Unauthorized
from dockmirror.oci.header_fields import etag_matches
from dockmirror.oci.media import OCI_INDEX, OCI_MANIFEST, accepts
from dockmirror.oci.request import (
    Blob,
    Catalog,
    InRepository,
    Manifest,
    Ping,
    Referrers,
    RegistryRequest,
    Repository,
    Tags,
    repository_of,
)
from dockmirror.oci.token import Credentials, TokenRequest
from dockmirror.oci.write import Write, WriteResult

from ..shelf import described, image

CHALLENGE = Challenge("Bearer", {"realm": "https://auth.example/token", "service": "s"})
EVERYBODY = "everybody"
NOBODY = "nobody"


def index(*manifests: bytes) -> bytes:
    listed = [described(manifest) for manifest in manifests]
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed}).encode()


def user(name: str) -> Credentials:
    return Credentials.bearer(name)


@define
class Shelf:
    """The content of one repository.

    :ivar readers: who may pull from it.
    :ivar narrow: what is given to those who do not admit all kinds, by tag.
    :ivar broken: what is said instead of an answer.
    :ivar conditional: whether ``If-None-Match`` is heeded.
    :ivar tells: whether a HEAD tells the digest.
    """

    readers: set[str] = field(factory=lambda: {EVERYBODY})
    tags: dict[str, Digest] = field(factory=dict)
    manifests: dict[Digest, tuple[str, bytes]] = field(factory=dict)
    blobs: dict[Digest, bytes] = field(factory=dict)
    narrow: dict[str, tuple[str, bytes]] = field(factory=dict)
    broken: RegistryError | None = None
    conditional: bool = True
    tells: bool = True

    def put(self, manifest: bytes, media_type: str = OCI_MANIFEST, tag: str | None = None) -> Digest:
        """Add a manifest."""
        digest = Digest.of(manifest)
        self.manifests[digest] = media_type, manifest
        if tag is not None:
            self.tags[tag] = digest
        return digest

    def publish(self, *layers: bytes, tag: str = "latest") -> bytes:
        """Add an image, and return its manifest."""
        self.blobs.update({Digest.of(layer): layer for layer in layers})
        manifest = image(*layers)
        self.put(manifest, tag=tag)
        return manifest


@define(frozen=True)
class Asked:
    """A request that reached the registry, and its client; ``nobody`` is the mirror without credentials."""

    who: str
    request: RegistryRequest

    def __str__(self) -> str:
        method = "HEAD" if self.request.head else "GET"
        if self.request.held:
            method = {"HEAD": "CHECK"}[method]
        part = f" {self.request.range}" if self.request.range else ""
        return f"{self.who}: {method} {str(self.request.target).removeprefix('/v2/')}{part}"


@implementer(IUpstream, IWritableRegistry)
class Origin:
    """A registry with credentials; without any it may be asked only through ``anonymous``.

    :ivar asked: all that reached it, in order.
    :ivar trouble: what it says to everybody instead of an answer.
    :ivar troubles: the same by who asks.
    :ivar open: whether ``/v2/`` demands nothing.
    :ivar says: what it answers to everything, where that is told.
    :ivar held_up: whether its answers wait until ``go_on``.
    :ivar writing: what it says to a write, once that is done, or without doing it.
    :ivar accepts_with: the status with which it accepts a manifest.
    :ivar several: whether it knows the parameter ``tag`` of a manifest's PUT.
    """

    def __init__(self) -> None:
        self.shelves: dict[str, Shelf] = {}
        self.asked: list[Asked] = []
        self.token_requests: list[TokenRequest] = []
        self.token_life = 300
        self.trouble: RegistryError | None = None
        self.troubles: dict[str, RegistryError] = {}
        self.open = False
        self.says: Answer | None = None
        self.held_up = False
        self.writing: tuple[bool, RegistryError] | None = None
        self.accepts_with = 201
        self.several = True
        self._waiting: list[Deferred[None]] = []

    @property
    def anonymous(self) -> IRegistry:
        """The same registry, asked with the mirror's own anonymous token."""
        return _Anonymous(self)

    def take(self) -> list[str]:
        """Return the requests since the last call, one line each."""
        lines = [str(asked) for asked in self.asked]
        self.asked.clear()
        return lines

    def shelf(self, name: str, readers: Iterable[str] = (EVERYBODY,)) -> Shelf:
        """Return a repository, which is created if it does not exist."""
        return self.shelves.setdefault(name, Shelf(set(readers)))

    def go_on(self) -> None:
        """Answer all waiting requests, and all later ones at once."""
        self.held_up = False
        self.go_on_once()

    def go_on_with_the_last(self) -> None:
        """Answer the newest waiting request only."""
        self._waiting.pop().callback(None)

    def go_on_once(self) -> None:
        """Answer all waiting requests; new ones wait."""
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)

    async def fetch(self, request: RegistryRequest) -> Answer:
        assert request.credentials is not None, "only the mirror itself may come without credentials"
        return await self.answer(request, request.credentials.header.removeprefix("Bearer "))

    async def token(self, request: TokenRequest) -> Answer:
        self.token_requests.append(request)
        await self._wait()
        if self.trouble is not None:
            raise self.trouble
        value = f"token-{len(self.token_requests)}"
        fields = {"token": value, "access_token": value, "expires_in": self.token_life}
        return Answer(json_body(json.dumps(fields).encode()), upstream_status=200)

    async def write(self, write: Write, body: IBody) -> WriteResult:
        data = await collect(body, 1_000_000)
        done = self.writing is None or self.writing[0]
        written = self._written(write, data, body.descriptor.media_type or "") if done else None
        await self._wait()
        if self.writing is not None:
            raise self.writing[1]
        assert written is not None
        return written

    def _written(self, write: Write, data: bytes, media_type: str) -> WriteResult:
        shelf = self.shelf(str(write.target.repository))
        target = write.target
        match target:
            case Manifest() if write.method == "PUT":
                digest = Digest.of(data)
                shelf.manifests[digest] = media_type, data
                further = [value for key, value in write.query if key == "tag" and self.several]
                named = [str(target.reference), *further]
                shelf.tags.update({name: digest for name in named if ":" not in name})
                told = (("Docker-Content-Digest", str(digest)), *(("OCI-Tag", name) for name in further))
                return WriteResult(self.accepts_with, headers=told, upstream_status=self.accepts_with)
            case Manifest():
                if target.digest is None:
                    del shelf.tags[str(target.reference)]
                else:
                    del shelf.manifests[target.digest]
            case Blob():
                del shelf.blobs[target.digest]
        return WriteResult(202, upstream_status=202)

    async def answer(self, request: RegistryRequest, who: str) -> Answer:
        self.asked.append(Asked(who, request))
        await self._wait()
        trouble = self.trouble or self.troubles.get(who)
        if trouble is not None:
            raise trouble
        if self.says is not None:
            return self.says
        if isinstance(request.target, Ping):
            return self._ping(who)
        if isinstance(request.target, Catalog):
            return Answer(json_body(b'{"repositories":[]}'), upstream_status=200)
        shelf = self._admitted(request.target, who)
        answer = self._given(shelf, request)
        return evolve(answer, upstream_status=answer.status)

    async def _wait(self) -> None:
        if self.held_up:
            self._waiting.append(Deferred())
            await self._waiting[-1]

    def _ping(self, who: str) -> Answer:
        if who == NOBODY and not self.open:
            raise Unauthorized(challenges=(CHALLENGE,), upstream_status=401)
        return Answer(json_body(b"{}"), upstream_status=200)

    def _admitted(self, target: InRepository, who: str) -> Shelf:
        shelf = self.shelves.get(str(repository_of(target)))
        if shelf is None or not shelf.readers & {EVERYBODY, who}:
            raise Unauthorized(challenges=(CHALLENGE,), upstream_status=401)
        if shelf.broken is not None:
            raise shelf.broken
        return shelf

    def _given(self, shelf: Shelf, request: RegistryRequest) -> Answer:
        match request.target:
            case Manifest() as target:
                return _manifest(shelf, request, target)
            case Blob() as target:
                return _blob(shelf, request, target)
            case Tags():
                return _listed(request, {"tags": sorted(shelf.tags)})
            case Referrers():
                return _listed(request, {"manifests": []})
        raise AssertionError(request)


@implementer(IRegistry)
class _Anonymous:
    def __init__(self, origin: Origin) -> None:
        self._origin = origin

    async def fetch(self, request: RegistryRequest) -> Answer:
        assert request.credentials is None, "the mirror asks for itself"
        return await self._origin.answer(request, NOBODY)


def _manifest(shelf: Shelf, request: RegistryRequest, target: Manifest) -> Answer:
    narrow = shelf.narrow.get(str(target.reference))
    digest = target.digest or shelf.tags.get(str(target.reference))
    if narrow is not None and not accepts(request.accept, OCI_MANIFEST):
        media_type, data = narrow
    elif digest in shelf.manifests:
        media_type, data = shelf.manifests[digest]
    else:
        raise ManifestUnknown(upstream_status=404)
    if not accepts(request.accept, media_type.partition(";")[0]):
        raise ManifestUnknown(upstream_status=404)
    descriptor = Descriptor(media_type, Digest.of(data), len(data))
    if shelf.conditional and etag_matches(request.if_none_match, descriptor.digest):
        return Answer(NoBody(descriptor), 304, consents=True)
    if request.head:
        told = descriptor if shelf.tells else evolve(descriptor, digest=None)
        return Answer(NoBody(told), consents=shelf.tells)
    return Answer(BytesBody(data, descriptor), consents=True)


def _blob(shelf: Shelf, request: RegistryRequest, target: Blob) -> Answer:
    if target.digest not in shelf.blobs:
        raise BlobUnknown(upstream_status=404)
    data = shelf.blobs[target.digest]
    descriptor = Descriptor("application/octet-stream", target.digest, len(data))
    if request.head:
        return Answer(NoBody(descriptor), consents=True)
    if request.range is None:
        return Answer(BytesBody(data, descriptor))
    (part,) = request.range.resolve(len(data))
    content = BytesBody(data[part.first : part.last + 1], evolve(descriptor, digest=None, size=part.length))
    return Answer(content, 206, content_range=part)


def _listed(request: RegistryRequest, fields: dict[str, object]) -> Answer:
    body = json.dumps({**fields, "query": dict(request.query)}).encode()
    content: IBody = NoBody(Descriptor("application/json", None, len(body)))
    listed = content if request.head else json_body(body)
    return Answer(listed, next_page=(("last", "x"),), consents=True)


def repository(name: str) -> Repository:
    return Repository(f"docker.io/{name}")
