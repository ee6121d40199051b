"""A store on a disk with images in it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from twisted.internet.task import Clock

from dockmirror.interfaces import ContentKind
from dockmirror.oci.digest import Digest
from dockmirror.oci.media import DOCKER_LIST, DOCKER_MANIFEST
from dockmirror.oci.reference import Repository, Tag
from dockmirror.store import layout
from dockmirror.store.eviction.budget import Budget
from dockmirror.store.eviction.eviction import CHECK_INTERVAL, Eviction
from dockmirror.store.local_store import LocalContentStore, LocalDocumentStore, LocalTagStore
from dockmirror.store.threads import RunInThread

from ..answering import now
from .contract import HERE
from .threads import inline

EPOCH = 1_700_000_000.0
HOUR = 3600.0


def manifest_of(*layers: Digest) -> bytes:
    """A manifest of these layers, the first of which is its configuration."""
    config, *others = [{"digest": str(layer)} for layer in layers]
    return json.dumps(
        {"schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": config, "layers": others}
    ).encode()


class Stocked:
    """A store, and a clock that the test sets; everything is put an hour before that."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock = Clock()
        self.clock.advance(EPOCH)
        self.contents = LocalContentStore(root, self.clock, inline)
        self.tags = LocalTagStore(root, self.clock, inline)
        self.documents = LocalDocumentStore(root, self.clock, inline)

    def blob(self, data: bytes, age: float = HOUR, repository: Repository = HERE) -> Digest:
        """Bytes that were used last so long ago."""
        return self.put(data, age, repository, ContentKind.BLOB)

    def image(
        self, *layers: Digest, age: float = HOUR, tag: str | None = None, repository: Repository = HERE
    ) -> Digest:
        """A manifest of these layers, the first of which is its configuration."""
        return self._manifest(manifest_of(*layers), age, tag, repository)

    def index(self, *manifests: Digest, age: float = HOUR, tag: str | None = None) -> Digest:
        """An index of these."""
        children = [{"digest": str(manifest)} for manifest in manifests]
        fields = {"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": children}
        return self._manifest(json.dumps(fields).encode(), age, tag, HERE)

    def age(self, digest: Digest, age: float) -> None:
        """Makes it as if it had been used so long ago."""
        when = self.clock.seconds() - age
        os.utime(self.root / layout.data(digest), (when, when))

    def held(self, *digests: Digest) -> list[bool]:
        """Which are held."""
        return [now(self.contents.holds(digest)) for digest in digests]

    def size(self) -> int:
        """Of everything that is held."""
        blobs = self.root / layout.BLOBS
        return sum(path.stat().st_size for path in blobs.rglob("data"))

    def eviction(self, budget: Budget, in_thread: RunInThread = inline) -> Eviction:
        """Started, and not yet at its first look."""
        eviction = Eviction(self.root, self.clock, in_thread, budget)
        eviction.start()
        return eviction

    def evict(self, budget: Budget) -> Eviction:
        """What a process does that starts on this store, where no other has counted before."""
        (self.root / layout.USAGE_COUNTER).unlink(missing_ok=True)
        eviction = self.eviction(budget)
        self.clock.advance(CHECK_INTERVAL)
        now(eviction.stop())
        return eviction

    def tree(self) -> Sequence[str]:
        """What there is."""
        return sorted(str(path.relative_to(self.root)) for path in self.root.glob("docker/**/*"))

    def _manifest(self, data: bytes, age: float, tag: str | None, repository: Repository) -> Digest:
        digest = self.put(data, age, repository, ContentKind.MANIFEST)
        if tag is not None:
            now(self.tags.put(repository, Tag(tag), digest))
        return digest

    def put(self, data: bytes, age: float, repository: Repository, kind: ContentKind) -> Digest:
        """Any content."""
        digest = Digest.of(data)
        now(self.contents.add(repository, digest, kind, data))
        self.age(digest, age)
        return digest
