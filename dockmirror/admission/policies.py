"""The operator's policies for the images of one registry, and the sources of the facts that they judge."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attrs import evolve, frozen
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import Attribute, Interface

from ..body.bodies import collect
from ..concurrency.coroutines import SingleFlight, gather
from ..config.image_rules import PolicyException, PolicySettings
from ..interfaces import IRegistry
from ..oci.digest import Digest
from ..oci.errors import DigestInvalid, RegistryError, Unavailable, summarize_error
from ..oci.manifest import MANIFEST_LIMIT, ManifestDocument
from ..oci.media import EVERYTHING
from ..oci.pull_rule import PullRule
from ..oci.request import (
    Blob,
    Manifest,
    Reference,
    Referrers,
    RegistryRequest,
    Repository,
    Requester,
    Tag,
    Tags,
    Target,
)
from .admit import AdmissionFacts, MissingFact, Subject

_TURNED_ON_BY = {"digests": "min_age"}
"""The keys that turn on the rules of other keys, which always have a value."""
_DIGEST = re.compile(r"sha(256|384|512):[0-9a-f]+")
GATHER_TIMEOUT = 3.0
"""Seconds that a source has to give its fact."""
_OWN_REASON = "the reason is in the mirror's log"
"""Stands for an error of the mirror's own machine, which may name its files."""
LoadManifest = Callable[[], Awaitable[ManifestDocument | None]]
_log = Logger()


@frozen
class Policies:
    """The policies, in the order of the settings.

    :ivar registry: the registry's name in images, such as docker.io.
    """

    registry: str
    _rules: Sequence[tuple[PullRule, PolicySettings]]

    @classmethod
    def of(cls, registry: str, policies: Sequence[PolicySettings]) -> Policies:
        """Return the policies for the images of a registry."""
        rules = [(_parse_pattern(each.images), each) for each in policies]
        return cls(registry, rules)

    def find(self, subject: Subject, key: str) -> PolicySettings | None:
        """Return the policy that holds for a kind of rule: the first one that matches and sets its key."""
        target = self._target(subject)
        for rule, policy in self._rules:
            if _sets(policy, key) and rule.covers(target):
                return policy
        return None

    def sets(self, key: str) -> bool:
        """Return whether any policy sets the key of a kind of rule and is not off."""
        return any(_sets(policy, key) and policy.mode != "off" for _, policy in self._rules)

    def find_exception(self, subject: Subject, policy: PolicySettings, now: float) -> PolicyException | None:
        """Return the exception that covers the subject, by its reference or its digest, or None."""
        today = datetime.fromtimestamp(now, UTC).date()
        for each in policy.exceptions:
            if each.until >= today and self._covers(each.image, subject):
                return each
        return None

    def _covers(self, image: str, subject: Subject) -> bool:
        if _DIGEST.fullmatch(image):
            return str(subject.digest) == image
        rule, target = _parse_pattern(image), self._target(subject)
        if rule.covers(target):
            return True
        return (
            subject.digest is not None
            and rule.digest is not None
            and rule.covers(evolve(target, reference=subject.digest))
        )

    def lock_files(self, subject: Subject) -> frozenset[Path]:
        """Return the lock files that hold for tags of the subject's repository."""
        tags = Tags(self.full_name(subject))
        return frozenset(
            policy.lock
            for rule, policy in self._rules
            if policy.lock is not None and policy.mode != "off" and rule.matches_repository(tags)
        )

    def full_name(self, subject: Subject) -> Repository:
        """Return the name of the subject's repository with its registry in front."""
        return Repository(f"{self.registry}/{subject.repository}")

    def _target(self, subject: Subject) -> Manifest:
        return Manifest(self.full_name(subject), subject.reference)


def _sets(policy: PolicySettings, key: str) -> bool:
    return getattr(policy, _TURNED_ON_BY.get(key, key)) is not None


def _parse_pattern(pattern: str) -> PullRule:
    """Parse a pattern of images; the colon before a registry's port is an underscore in its name."""
    path, slash, name = pattern.rpartition("/")
    return PullRule.parse(f"{path.replace(':', '_')}{slash}{name}")


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
        return await self._read(Manifest(self.repository, reference), MANIFEST_LIMIT)

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
        data = await self._read(Referrers(self.repository, digest), MANIFEST_LIMIT)
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
