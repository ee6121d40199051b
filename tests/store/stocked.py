"""A store on disk that tests fill with images."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from twisted.internet.task import Clock

from dockmirror.concurrency.coroutines import RunInThread
from dockmirror.interfaces import ContentKind, IStoredContent, ITagStore
from dockmirror.oci.digest import Digest
from dockmirror.oci.media import DOCKER_LIST, DOCKER_MANIFEST, OCI_MANIFEST
from dockmirror.oci.request import Repository, Tag
from dockmirror.store import layout
from dockmirror.store.eviction.eviction import CHECK_INTERVAL, Eviction
from dockmirror.store.eviction.store_budget import Budget
from dockmirror.store.file_body import read_content
from dockmirror.store.local_store import LocalStore

from ..answering import now
from .threads import inline

HERE = Repository("docker.io/library/busybox")
ELSEWHERE = Repository("ghcr.io/else/where")
LATEST = Tag("latest")
DATA = b"a small content"
DIGEST = Digest.of(DATA)
LARGE = bytes(range(256)) * 2800
LARGE_DIGEST = Digest.of(LARGE)
EPOCH = 1_700_000_000.0
HOUR = 3600.0


async def read(opened: IStoredContent | None) -> bytes | None:
    """Read all bytes of an open content."""
    return None if opened is None else await read_content(opened)


def manifest_of(*layers: Digest) -> bytes:
    """Return a manifest of these layers, the first of which is its configuration."""
    config, *others = [{"digest": str(layer)} for layer in layers]
    return json.dumps(
        {"schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": config, "layers": others}
    ).encode()


def artifact_of(subject: Digest, name: str) -> bytes:
    """Return the manifest of an artifact without layers."""
    belongs = {"artifactType": name, "subject": {"digest": str(subject)}}
    empty = {"digest": str(Digest.of(b"{}"))}
    fields = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": empty, "layers": []}
    return json.dumps({**fields, **belongs}).encode()


def read_tag(tags: ITagStore, tag: Tag = LATEST) -> Digest | None:
    entry = now(tags.get(HERE, tag))
    return entry.digest if entry else None


class Stocked:
    """A store with a clock that the test sets; everything is stored an hour before that."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock = Clock()
        self.clock.advance(EPOCH)
        store = LocalStore.open(root, self.clock, inline)
        self.contents, self.tags, self.documents = store.contents, store.tags, store.documents

    def blob(self, data: bytes, age: float = HOUR, repository: Repository = HERE) -> Digest:
        """Store bytes that were last used so long ago."""
        return self.put(data, age, repository, ContentKind.BLOB)

    def image(
        self, *layers: Digest, age: float = HOUR, tag: str | None = None, repository: Repository = HERE
    ) -> Digest:
        """Store a manifest of these layers, the first of which is its configuration."""
        return self._manifest(manifest_of(*layers), age, tag, repository)

    def artifact(
        self, subject: Digest, name: str, age: float = HOUR, repository: Repository = HERE
    ) -> Digest:
        """Store an artifact that belongs to a manifest."""
        return self._manifest(artifact_of(subject, name), age, None, repository)

    def index(self, *manifests: Digest, age: float = HOUR, tag: str | None = None) -> Digest:
        """Store an index of these manifests."""
        children = [{"digest": str(manifest)} for manifest in manifests]
        fields = {"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": children}
        return self._manifest(json.dumps(fields).encode(), age, tag, HERE)

    def age(self, digest: Digest, age: float) -> None:
        """Set the last use to so long ago."""
        when = self.clock.seconds() - age
        os.utime(self.root / layout.data(digest), (when, when))

    def held(self, *digests: Digest) -> list[bool]:
        return [now(self.contents.holds(digest)) for digest in digests]

    def size(self) -> int:
        blobs = self.root / layout.BLOBS
        return sum(path.stat().st_size for path in blobs.rglob("data"))

    def eviction(self, budget: Budget, in_thread: RunInThread = inline) -> Eviction:
        """Return a started eviction before its first check."""
        eviction = Eviction(self.root, self.clock, in_thread, budget)
        eviction.start()
        return eviction

    def evict(self, budget: Budget) -> Eviction:
        """Evict like a process that starts on this store without a count."""
        (self.root / layout.USAGE_COUNTER).unlink(missing_ok=True)
        eviction = self.eviction(budget)
        self.clock.advance(CHECK_INTERVAL)
        now(eviction.stop())
        return eviction

    def is_empty(self) -> bool:
        """Report whether nothing but the topmost directories is left."""
        return not list(self.root.glob("docker/registry/v2/*/*"))

    def tree(self) -> Sequence[str]:
        return sorted(str(path.relative_to(self.root)) for path in self.root.glob("docker/**/*"))

    def _manifest(self, data: bytes, age: float, tag: str | None, repository: Repository) -> Digest:
        digest = self.put(data, age, repository, ContentKind.MANIFEST)
        if tag is not None:
            now(self.tags.put(repository, Tag(tag), digest))
        return digest

    def put(self, data: bytes, age: float, repository: Repository, kind: ContentKind) -> Digest:
        digest = Digest.of(data)
        now(self.contents.add(repository, digest, kind, data))
        self.age(digest, age)
        return digest
