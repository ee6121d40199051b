"""Admission in the stack of an upstream: the policies, the sources of facts, and what is held."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.interfaces import IReactorTime

from ..admission.admission_registry import AdmissionContext
from ..admission.fact_source import FactGatherer, IFactSource
from ..admission.policies import Policies
from ..body.in_memory import collect
from ..config.settings import Settings
from ..metrics import Metrics
from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.ranges import whole_range
from ..oci.reference import Repository
from ..pullthrough.manifest_store import ManifestStore
from .cache import CacheParts
from .naming import registry_names
from .upstream_stack import AgentFor
from .verdict_sources import make_verdict_sources


def make_admission(
    name: str,
    settings: Settings,
    cache: CacheParts,
    metrics: Metrics,
    clock: IReactorTime,
    agent_for: AgentFor,
) -> AdmissionContext:
    """Return everything that decides which manifests of an upstream are served."""
    registry = registry_names(settings.upstreams[name])[0]
    manifests = ManifestStore(cache.contents)

    async def is_whole(repository: Repository, digest: Digest) -> bool:
        place = Repository(f"{registry}/{repository}")
        stored = await manifests.get(place, digest)
        return stored is not None and await manifests.is_complete(place, stored)

    async def read_manifest(repository: Repository, digest: Digest) -> bytes | None:
        stored = await manifests.get(Repository(f"{registry}/{repository}"), digest)
        return stored.data if stored else None

    def count(rule: str, outcome: str) -> None:
        metrics.admissions.labels(name, rule, outcome).inc()

    async def peek(digest: Digest, limit: int) -> bytes | None:
        stored = await cache.contents.peek(digest)
        if stored is None:
            return None
        return await collect(
            stored.body(Descriptor(None, digest, stored.size), whole_range(stored.size)), limit
        )

    sources: Sequence[IFactSource] = make_verdict_sources(
        registry, settings, cache.documents, cache.in_thread, clock, agent_for
    )
    gatherer = FactGatherer(sources, Policies.of(registry, settings.policy), clock)
    return AdmissionContext(
        name, gatherer, lambda: cache.generation.number, is_whole, read_manifest, count, clock, peek
    )
