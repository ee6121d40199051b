"""A mirror with policies in front of it, over a registry and a history in memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from attrs import evolve
from twisted.internet.task import Clock
from zope.interface import implementer

from dockmirror.admission.admission_registry import AdmissionContext, AdmissionRegistry
from dockmirror.admission.lock_file import LockSource
from dockmirror.admission.policies import FactGatherer, IFactSource, Policies
from dockmirror.admission.recalls import Recalls
from dockmirror.admission.sightings import SightingRegistry, SightingUpstream, TagRecorder
from dockmirror.admission.tag_facts import CoolDownContext, CoolDownSource, FindPush, KnownDigestSource
from dockmirror.config.image_rules import PolicySettings
from dockmirror.interfaces import Answer, IRegistry, ITagHistory, IUpstream, Sighting
from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import Denied, RegistryError
from dockmirror.oci.request import RegistryRequest, Repository, Tag
from dockmirror.oci.token import TokenRequest
from dockmirror.pullthrough.manifest_store import ManifestStore
from dockmirror.store.tag_history import Key, TagRecord

from ..pullthrough.mirrors import NAME, Mirror
from ..pullthrough.origin import Origin, repository

DAY = 86_400.0
REPOSITORY, LATEST = Repository(NAME), Tag("latest")


@implementer(ITagHistory)
class MemoryTagHistory:
    """Records in memory.

    :ivar broken: raised instead of an answer.
    :ivar reads: how often a record was read.
    """

    def __init__(self) -> None:
        self.records: dict[Key, TagRecord] = {}
        self.broken: OSError | None = None
        self.reads = 0

    def get(self, *key: Any) -> TagRecord:
        if self.broken is not None:
            raise self.broken
        self.reads += 1
        return self.records.get(key, TagRecord())

    async def record(
        self, upstream: str, repository: Repository, tag: Tag, digest: Digest, seen: float
    ) -> None:
        key = upstream, repository, tag
        self.records[key] = self.get(*key).with_sighting(digest, seen)

    async def record_push(
        self, upstream: str, repository: Repository, tag: Tag, digest: Digest, pushed: float
    ) -> None:
        key = upstream, repository, tag
        self.records[key] = self.get(*key).with_push(digest, pushed)

    async def record_pull(self, upstream: str, repository: Repository, tag: Tag, now: float) -> None:
        key = upstream, repository, tag
        self.records[key] = evolve(self.get(*key), pulled=now)

    async def sightings(self, upstream: str, repository: Repository, tag: Tag) -> Sequence[Sighting]:
        return self.get(upstream, repository, tag).sightings

    async def last_pull(self, upstream: str, repository: Repository, tag: Tag) -> float:
        return self.get(upstream, repository, tag).pulled

    async def tags(
        self, upstream: str, repository: Repository | None = None
    ) -> Sequence[tuple[Repository, Tag]]:
        return sorted(key[1:] for key in self.records if repository in (None, key[1]))

    async def version(self, upstream: str, repository: Repository) -> object | None:
        return [
            bytes(record) for key, record in sorted(self.records.items()) if key[:2] == (upstream, repository)
        ]


@implementer(IUpstream)
class _Sighted:
    """An origin of which the answers are recorded."""

    def __init__(self, origin: Origin, recorder: TagRecorder) -> None:
        self._registry = SightingUpstream(origin, recorder)
        self.anonymous: IRegistry = SightingRegistry(origin.anonymous, recorder)

    async def fetch(self, request: RegistryRequest) -> Answer:
        return await self._registry.fetch(request)

    async def token(self, request: TokenRequest) -> Answer:
        return await self._registry.token(request)


class Gated(Mirror):
    """A mirror that decides by policies what it serves.

    :ivar held: what is kept from eviction, by tag.
    :ivar audit: the events in the audit log.
    :ivar counts: the decisions that were counted.
    :ivar generation: voids decisions when it changes.
    :ivar recalls: those in force; the cool-down alone regards them.
    """

    def __init__(
        self,
        *policies: dict[str, Any],
        origin: Origin | None = None,
        clock: Clock | None = None,
        find_push: FindPush | None = None,
        sources: Sequence[IFactSource] = (),
        **more: Any,
    ) -> None:
        self.registry_behind = origin or Origin()
        self.history = MemoryTagHistory()
        clock = clock or _at_noon()
        recorder = TagRecorder("docker", self.history, clock)
        super().__init__(_Sighted(self.registry_behind, recorder), clock=clock, **more)
        settings = [PolicySettings.model_validate({"images": "docker.io/**", **each}) for each in policies]
        self.held: dict[Tag, Digest] = {}
        self.audit: list[dict[str, str]] = []
        self.counts: list[tuple[str, str]] = []
        self.generation = 0
        self.recalls = Recalls()
        self.policies = Policies.of("docker.io", settings)
        manifests = ManifestStore(self.contents)

        async def is_whole(name: Repository, digest: Digest) -> bool:
            stored = await manifests.get(repository(str(name)), digest)
            return stored is not None and await manifests.is_complete(repository(str(name)), stored)

        async def read(name: Repository, digest: Digest) -> bytes | None:
            stored = await manifests.get(repository(str(name)), digest)
            return stored.data if stored else None

        self.source = CoolDownSource(
            CoolDownContext(
                self.history, self.policies, find_push, self._hold, read, self.audit.append, clock,
                lambda: self.recalls,
            )
        )  # fmt: skip
        lock = LockSource(self.policies)
        known = KnownDigestSource(self.source, self.history, read, lock.list_locked, clock)
        gatherer = FactGatherer((self.source, known, lock, *sources), self.policies, clock)
        context = AdmissionContext(
            "docker", gatherer, lambda: self.generation, is_whole, self.gateway.check, read, _hold_nothing,
            lambda rule, outcome: self.counts.append((rule, outcome)), clock,
        )  # fmt: skip
        self.registry = AdmissionRegistry(self.registry, context)

    async def _hold(self, _: Repository, tag: Tag, digest: Digest) -> None:
        self.held[tag] = digest

    def publish(self, version: str, tag: str = "latest") -> bytes:
        """Move the registry's tag to an image of that name, and return its manifest."""
        layers = f"config {version}".encode(), f"layer {version}".encode()
        return self.registry_behind.shelf(NAME).publish(*layers, tag=tag)

    def served(self, tag: str = "latest", **details: Any) -> bytes | str:
        """Return the manifest that a tag is served as, or the reason for a refusal."""
        try:
            return self.get(f"{NAME}/manifests/{tag}", **details)
        except Denied as denied:
            return str(denied)

    def fetch_blobs(self, manifest: bytes) -> None:
        """Pull everything that the manifest refers to."""
        fields = json.loads(manifest)
        for blob in (fields["config"], *fields["layers"]):
            self.get(f"{NAME}/blobs/{blob['digest']}")

    def pass_days(self, days: float, step: float = 0.5, tag: str = "latest") -> None:
        """Let days pass in which the tag is polled."""
        while days > 0:
            self.clock.advance(min(step, days) * DAY)
            days -= step
            self.poll(tag)

    def poll(self, tag: str = "latest") -> None:
        """Ask the registry by HEAD what the tag names; its errors are ignored."""
        with suppress(RegistryError):
            self.ask(f"{NAME}/manifests/{tag}", head=True)


def _at_noon() -> Clock:
    clock = Clock()
    clock.advance(1_700_000_000.0)
    return clock


async def _hold_nothing(_: Digest, __: int) -> bytes | None:
    return None
