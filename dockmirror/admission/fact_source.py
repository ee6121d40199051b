"""Facts about subjects, gathered at once and within a time limit; their sources may read the repository."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import Attribute, Interface

from ..body.in_memory import collect
from ..concurrency.coroutines import SingleFlight, gather
from ..config.image_rules import PolicySettings
from ..interfaces import IRegistry
from ..oci.digest import Digest
from ..oci.errors import DigestInvalid, RegistryError, Unavailable, summarize_error
from ..oci.manifest import ManifestDocument
from ..oci.media import EVERYTHING
from ..oci.request import (
    Blob,
    Manifest,
    Reference,
    Referrers,
    RegistryRequest,
    Repository,
    Requester,
    Tag,
    Target,
)
from .admit import AdmissionFacts, MissingFact, Subject
from .policies import Policies

GATHER_TIMEOUT = 3.0
"""Seconds that a source has to give its fact."""
_OWN_REASON = "the reason is in the mirror's log"
"""Stands for an error of the mirror's own machine, which may name its files."""
LoadManifest = Callable[[], Awaitable[ManifestDocument | None]]
_MANIFEST_LIMIT = 4 * 1024 * 1024
_log = Logger()


@frozen
class RepositoryReader:
    """Reads manifests, blobs and referrers of a repository, through the cache as the client would.

    :ivar registry: the registry below admission.
    :ivar request: the client's request, whose credentials are used.
    :ivar peek: returns held bytes, of a blob for which the registry redirects clients to the bucket.
    """

    registry: IRegistry
    repository: Repository
    request: RegistryRequest
    peek: Callable[[Digest, int], Awaitable[bytes | None]]

    @property
    def requester(self) -> Requester:
        """The client, as it is told to policy servers."""
        received = self.request.received
        return Requester() if received is None else received.requester

    async def manifest(self, reference: Reference) -> bytes | None:
        """Return a manifest, or None if the repository has none of that name.

        :raises RegistryError: when it cannot be had.
        """
        return await self._read(Manifest(self.repository, reference), _MANIFEST_LIMIT)

    async def document(self, digest: Digest) -> ManifestDocument | None:
        """Return a parsed manifest, or None if there is none or it is of an unknown type.

        :raises RegistryError: when it cannot be had.
        """
        data = await self.manifest(digest)
        return None if data is None else ManifestDocument.parse(data)

    async def blob(self, digest: Digest, limit: int) -> bytes | None:
        """Return a blob of at most so many bytes, or None if the repository does not have it.

        :raises RegistryError: when it cannot be had, or is larger.
        """
        data = await self._read(Blob(self.repository, digest), limit)
        if data is not None and not digest.matches(data):
            data = await self.peek(digest, limit)
            if data is None or not digest.matches(data):
                raise Unavailable(f"the blob {digest} cannot be read")
        return data

    async def referrers(self, digest: Digest) -> Sequence[tuple[str, Digest]]:
        """Return type and digest of the manifests whose subject is this one, by the API or the tag schema.

        Source: OCI distribution specification, "Listing Referrers" and "Referrers Tag Schema".

        :raises RegistryError: when the list cannot be had.
        """
        data = await self._read(Referrers(self.repository, digest), _MANIFEST_LIMIT)
        if data is None:
            data = await self.manifest(Tag(f"{digest.algorithm}-{digest.hex}"))
        return [] if data is None else _parse_referrers(data)

    async def _read(self, target: Target, limit: int) -> bytes | None:
        request = RegistryRequest(target, accept=EVERYTHING, credentials=self.request.credentials)
        try:
            return await collect((await self.registry.fetch(request)).body, limit)
        except RegistryError as error:
            if error.status == 404:
                return None
            raise


def _parse_referrers(index: bytes) -> list[tuple[str, Digest]]:
    try:
        found = json.loads(index)["manifests"]
        return [(str(each.get("artifactType") or ""), Digest.parse(each["digest"])) for each in found]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, DigestInvalid):
        return []


@frozen
class FactContext:
    """A subject, its policy, and the ways to the contents by which a source finds its fact.

    :ivar policy: the policy that holds for the rule.
    :ivar load: returns the manifest, or None if it is not at hand.
    :ivar reader: reads more of the repository, as the client that requests the subject.
    """

    subject: Subject
    policy: PolicySettings
    load: LoadManifest
    reader: RepositoryReader

    async def read_manifest(self) -> ManifestDocument | None:
        """Return the manifest of the subject's digest, or None if it cannot be read.

        :raises RegistryError: when it cannot be had.
        """
        manifest = await self.load()
        if manifest is not None or self.subject.digest is None:
            return manifest
        return await self.reader.document(self.subject.digest)


class IFactSource(Interface):
    """A source of one kind of fact."""

    fact: str = Attribute("The name of the field of ``AdmissionFacts`` that it fills.")
    setting: str = Attribute("The key that turns its rule on in a policy.")
    is_about_tags: bool = Attribute("True if it says which digest a tag is, False if it judges a digest.")

    async def gather(context: FactContext) -> Any:
        """Return the fact, or None if the rule does not apply.

        :raises OSError: when the fact cannot be had; ``RegistryError`` as well.  Then the rule refuses,
            unless the policy has ``on_error = "serve"``.
        """


@frozen
class FactGatherer:
    """Asks all sources whose rules apply to a subject."""

    sources: Sequence[IFactSource]
    policies: Policies
    clock: IReactorTime

    def applicable(self, subject: Subject, is_replacement: bool) -> list[tuple[IFactSource, PolicySettings]]:
        """Return the sources whose rules apply, each with the policy that holds.

        :param is_replacement: True if the digest was chosen by a rule about tags.
        """
        found: list[tuple[IFactSource, PolicySettings]] = []
        for source in self.sources:
            if is_replacement and source.is_about_tags:
                continue
            policy = self.policies.find(subject, source.setting)
            if policy is not None and policy.mode != "off":
                found.append((source, policy))
        return found

    async def gather(
        self,
        subject: Subject,
        applicable: Sequence[tuple[IFactSource, PolicySettings]],
        load_manifest: LoadManifest,
        reader: RepositoryReader,
    ) -> AdmissionFacts:
        """Return the facts of these sources.

        :param load_manifest: is called when the first of them needs the manifest.
        :param reader: reads more of the repository as the client.
        """
        load = _load_once(load_manifest)
        facts = await gather(
            self._gather(source, FactContext(subject, policy, load, reader)) for source, policy in applicable
        )
        named = {source.fact: fact for (source, _), fact in zip(applicable, facts, strict=True)}
        warned = frozenset(source.fact for source, policy in applicable if policy.mode == "warn")
        return AdmissionFacts(**named, warn_only=warned)

    async def _gather(self, source: IFactSource, context: FactContext) -> Any:
        """Return the source's fact; its type is the source's own."""
        gathering = Deferred.fromCoroutine(source.gather(context))
        gathering.addTimeout(GATHER_TIMEOUT, self.clock)
        try:
            return await gathering
        except TimeoutError:
            missing = MissingFact.of(source.setting, f"no answer within {GATHER_TIMEOUT:g} s")
        except RegistryError as error:
            missing = MissingFact.of(source.setting, summarize_error(error))
        except OSError as error:
            missing = MissingFact.of(source.setting, str(error), _OWN_REASON)
        _log.warn("{subject}: {why}", subject=str(context.subject), why=missing.why)
        return None if context.policy.on_error == "serve" else missing


def _load_once(load: LoadManifest) -> LoadManifest:
    """Return a function that loads the manifest at its first call; all calls return that one."""
    loaded: list[ManifestDocument | None] = []
    loading: SingleFlight[None, ManifestDocument | None] = SingleFlight()

    async def begin() -> ManifestDocument | None:
        return await load()

    async def load_manifest() -> ManifestDocument | None:
        if not loaded:
            loaded.append(await loading.get(None, begin))
        return loaded[0]

    return load_manifest
