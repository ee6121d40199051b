"""Admission in the stack of an upstream: the policies, the sources of facts, and what is held.

A mirror without policies does not import it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache as cache_calls
from functools import partial
from urllib.parse import urlsplit

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from ..admission.admission_registry import AdmissionContext
from ..admission.hook import HookSource, PolicyServer
from ..admission.image_limits import LIMIT_KEYS, ImageLimitSource
from ..admission.lock_file import LockReader, LockSource
from ..admission.policies import FactGatherer, IFactSource, Policies
from ..admission.sightings import PolledUpstream
from ..admission.signature_source import (
    KeylessVerifier,
    SignatureSource,
    is_sigstore_installed,
    load_verifier,
)
from ..admission.signatures import Identity, PublicKey, Signers
from ..admission.tag_facts import (
    HUB_API,
    CoolDownContext,
    CoolDownSource,
    FindPush,
    HubPushTimes,
    KnownDigestSource,
    KnownParents,
)
from ..body.bodies import collect
from ..concurrency.coroutines import RunInThread, TTLCache
from ..config.field_types import SettingsFile
from ..config.image_rules import SignedBy, SignerIdentity
from ..config.settings import ConfigurationError, Settings, UpstreamSettings, setting_errors
from ..interfaces import IDocumentStore
from ..oci.digest import Descriptor, Digest
from ..oci.header_fields import whole_range
from ..oci.request import Repository, Tag
from ..pullthrough.authorization import PUBLIC_STALE_TTL
from ..pullthrough.manifest_store import ManifestStore
from ..pullthrough.upstream_gateway import UpstreamGateway
from ..store import pins
from ..upstream.agents import make_http_client
from ..upstream.upstream_client import UpstreamClient
from .cache import CacheParts
from .upstream_stack import AgentFor, UpstreamContext, upstream_errors

_MOST = 10_000


@frozen
class Admission:
    """The parts that decide about the images of one upstream.

    :ivar context: what manifests are served by.
    :ivar polled: what the upstream's tags are polled by.
    """

    context: AdmissionContext
    polled: PolledUpstream


def make_admission(
    upstream: UpstreamContext,
    settings: Settings,
    cache: CacheParts,
    gateway: UpstreamGateway,
    audit: Callable[[dict[str, str]], None],
) -> Admission:
    """Return everything that decides which manifests of an upstream are served.

    :param audit: writes an event to the audit log.
    """
    name, clock = upstream.name, upstream.clock
    registry = upstream.settings.canonical
    policies = Policies.of(registry, settings.policy)
    held = _HeldManifests(registry, cache, clock)
    cool_down = CoolDownSource(
        CoolDownContext(
            history=cache.tag_history,
            policies=policies,
            find_push=_make_find_push(upstream, registry)
            if _goes_by_registry(settings, upstream.settings)
            else None,
            hold=held.hold,
            read_manifest=held.read,
            audit=audit,
            clock=clock,
            recalls=cache.recalls.current,
        )
    )

    counters = cache_calls(partial(upstream.metrics.admissions.labels, name))

    def count(rule: str, outcome: str) -> None:
        counters(rule, outcome).inc()

    async def is_public(repository: Repository) -> bool:
        return await gateway.public.age(repository) < PUBLIC_STALE_TTL

    verdicts = make_verdict_sources(
        registry, settings, cache.documents, cache.in_thread, clock, upstream.agent_for
    )
    lock = LockSource(policies)
    sources: Sequence[IFactSource] = (
        cool_down,
        lock,
        KnownDigestSource(cool_down, cache.tag_history, held.read, lock.list_locked, clock),
        *verdicts,
    )
    context = AdmissionContext(
        upstream=name,
        gatherer=FactGatherer(sources, policies, clock),
        generation=lambda: cache.generation.number,
        is_whole=held.is_whole,
        is_given=gateway.check,
        read_manifest=held.read,
        peek=held.peek,
        count=count,
        clock=clock,
    )
    polled = PolledUpstream(policies, cool_down, gateway, is_public, upstream.choice.choose)
    return Admission(context, polled)


def check_lock_files(settings: Settings) -> None:
    """Read the lock files of the policies that are in force.

    :raises ConfigurationError: when one cannot be read, or is malformed.
    """
    for number, policy in enumerate(settings.policy):
        if policy.lock is not None and policy.mode != "off":
            with setting_errors(f"policy.{number}.lock"):
                LockReader(policy.lock).current()


class _HeldManifests:
    """The manifests of one registry that are held, by the names of its repositories."""

    def __init__(self, registry: str, cache: CacheParts, clock: IReactorTime) -> None:
        self._registry = registry
        self._cache = cache
        self._clock = clock
        self._manifests = ManifestStore(cache.contents)

    async def is_whole(self, repository: Repository, digest: Digest) -> bool:
        """Return whether an image is held with everything that a client requests after it."""
        place = self._place(repository)
        stored = await self._manifests.get(place, digest)
        return stored is not None and await self._manifests.is_complete(place, stored)

    async def read(self, repository: Repository, digest: Digest) -> bytes | None:
        """Return a manifest, or None if it is not held."""
        stored = await self._manifests.get(self._place(repository), digest)
        return stored.data if stored else None

    async def peek(self, digest: Digest, limit: int) -> bytes | None:
        """Return the bytes of a content, or None if they are not held."""
        stored = await self._cache.contents.peek(digest)
        if stored is None:
            return None
        body = stored.body(Descriptor(None, digest, stored.size), whole_range(stored.size))
        return await collect(body, limit)

    async def hold(self, repository: Repository, tag: Tag, digest: Digest) -> None:
        """Keep the manifest that a tag is served as from eviction."""
        place, now = self._place(repository), self._clock.seconds()
        await self._cache.in_thread(partial(pins.hold_tag, self._cache.root, place, tag, digest, now))

    def _place(self, repository: Repository) -> Repository:
        return Repository(f"{self._registry}/{repository}")


def _goes_by_registry(settings: Settings, upstream: UpstreamSettings) -> bool:
    if settings.is_offline(upstream):
        return False
    return any(policy.first_pull == "registry" for policy in settings.policy)


def _make_find_push(upstream: UpstreamContext, registry: str) -> FindPush | None:
    if registry != "docker.io":
        return None
    api = upstream.settings.model_copy(update={"urls": (HUB_API,)})
    agent = upstream.agent_for(api, lambda host, address: None)
    client = UpstreamClient(make_http_client(agent), upstream.clock, upstream.name, HUB_API)
    return HubPushTimes(client, upstream.clock).find


def make_verdict_sources(
    registry: str,
    settings: Settings,
    documents: IDocumentStore,
    in_thread: RunInThread,
    clock: IReactorTime,
    agent_for: AgentFor,
) -> Sequence[IFactSource]:
    """Return the sources of the rules that policies set.

    :param registry: the registry's name in images.
    :raises ConfigurationError: when a key, the secret or the optional library is missing.
    """
    gate = settings.gate
    parents = KnownParents(registry, documents, TTLCache(clock, _MOST), TTLCache(clock, _MOST))
    sources: list[IFactSource] = []
    if any(policy.signed_by for policy in settings.policy):
        keyless = KeylessVerifier(gate.trust_root, clock.seconds, settings.offline)
        signers = load_signers(settings)
        sources.append(SignatureSource(signers, documents, parents, keyless.verify, in_thread))
    sources += [
        ImageLimitSource(key, parents)
        for key in LIMIT_KEYS
        if any(getattr(policy, key) is not None for policy in settings.policy)
    ]
    if server := make_policy_server(settings, clock, agent_for):
        sources.append(HookSource(registry, server, parents, documents, clock))
    return sources


def load_signers(settings: Settings) -> dict[SignedBy, Signers]:
    """Return the signers of each policy.

    :raises ConfigurationError: when a key or the root of trust is invalid, or the library for keyless signers
        is missing.
    """
    found = {
        policy.signed_by: _load_signers(f"policy.{number}.signed_by", policy.signed_by)
        for number, policy in enumerate(settings.policy)
        if policy.signed_by
    }
    if any(signers.identities for signers in found.values()):
        if not is_sigstore_installed():
            raise ConfigurationError(
                "policy: keyless signers need the extra 'signatures': pip install 'dockmirror[signatures]'"
            )
        if settings.gate.trust_root is not None:
            with setting_errors("gate.trust_root"):
                load_verifier(settings.gate.trust_root)
    return found


def _load_signers(key: str, signed_by: SignedBy) -> Signers:
    with setting_errors(key):
        keys = [_load_key(each) for each in signed_by if isinstance(each, SettingsFile)]
    return Signers(
        keys,
        [Identity(each.issuer, each.subject) for each in signed_by if isinstance(each, SignerIdentity)],
    )


def _load_key(path: SettingsFile) -> PublicKey:
    try:
        return PublicKey.parse(path.name, path.read_once())
    except ValueError:
        raise ValueError(f"expected a public key of RSA, ECDSA or Ed25519 in PEM in {path}") from None


def make_policy_server(settings: Settings, clock: IReactorTime, agent_for: AgentFor) -> PolicyServer | None:
    """Return the policy server, or None if no policy asks it.

    :raises ConfigurationError: when its address or its secret is missing, or its CA bundle is invalid.
    """
    gate = settings.gate
    if not any(policy.hook for policy in settings.policy):
        return None
    if gate.url is None:
        raise ConfigurationError("gate.url: is missing: a policy has 'hook = true'")
    parts = urlsplit(gate.url)
    server = UpstreamSettings(url=(f"{parts.scheme}://{parts.netloc}",), ca_file=gate.ca_file)
    secret = ""
    if gate.secret_file is not None:
        with setting_errors("gate.secret_file"):
            secret = gate.secret_file.read_once().decode("ascii").strip()
        if not secret or not secret.isprintable():
            raise ConfigurationError(f"gate.secret_file: expected a line of text in {gate.secret_file}")
    with upstream_errors("gate", server):
        http = make_http_client(agent_for(server, lambda host, address: None))
    return PolicyServer(gate.url, secret, http, clock, gate.timeout)
