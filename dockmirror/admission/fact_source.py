"""Facts about subjects, gathered concurrently and within a time limit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, TimeoutError, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import Attribute, Interface

from ..config.settings import PolicySettings
from ..oci.errors import RegistryError
from ..oci.manifest import ManifestDocument
from .admit import AdmissionFacts
from .policies import Policies
from .repository_reader import RepositoryReader
from .verdict import MissingFact, Subject

GATHER_TIMEOUT = 3.0
"""Seconds that a source has to give its fact."""
LoadManifest = Callable[[], Awaitable[ManifestDocument | None]]
_log = Logger()


class IFactSource(Interface):
    """A source of one kind of fact."""

    fact: str = Attribute("The name of the field of ``Facts`` that it fills.")
    setting: str = Attribute("The key that turns its rule on in a policy; empty if it always applies.")
    is_about_tags: bool = Attribute("True if it says which digest a tag is, False if it judges a digest.")
    needs_manifest: bool = Attribute("True if it needs the manifest itself.")

    async def gather(
        subject: Subject, policy: PolicySettings | None, manifest: ManifestDocument | None
    ) -> Any:
        """Return the fact, or None if the rule does not apply.

        :param policy: the policy that holds; None for a rule that always applies.
        :param manifest: None if it is not needed, or cannot be read.
        :raises OSError: when the fact cannot be had; ``RegistryError`` as well.  Then the rule refuses,
            unless the policy has ``on_error = "serve"``.
        """


class IClientFactSource(IFactSource):
    """A source that reads more of the repository, as the client that requests the subject."""

    def bind(reader: RepositoryReader) -> IFactSource:
        """Return the source for one client's request."""


@frozen
class FactGatherer:
    """Asks all sources whose rules apply to a subject."""

    sources: Sequence[IFactSource]
    policies: Policies
    clock: IReactorTime

    def applicable(
        self, subject: Subject, is_replacement: bool
    ) -> list[tuple[IFactSource, PolicySettings | None]]:
        """Return the sources whose rules apply, each with the policy that holds.

        :param is_replacement: whether the digest was chosen by a rule about tags.
        """
        found: list[tuple[IFactSource, PolicySettings | None]] = []
        for source in self.sources:
            if is_replacement and source.is_about_tags:
                continue
            policy = self.policies.find(subject, source.setting) if source.setting else None
            if not source.setting or (policy is not None and policy.mode != "off"):
                found.append((source, policy))
        return found

    async def gather(
        self,
        subject: Subject,
        applicable: Sequence[tuple[IFactSource, PolicySettings | None]],
        load_manifest: LoadManifest,
        reader: RepositoryReader,
    ) -> AdmissionFacts:
        """Return the facts of these sources.

        :param reader: reads more of the repository as the client.
        """
        manifest = None
        if any(source.needs_manifest for source, _ in applicable):
            manifest = await load_manifest()
        gathering = [
            Deferred.fromCoroutine(self._gather(_bind(source, reader), policy, subject, manifest))
            for source, policy in applicable
        ]
        facts = await gatherResults(gathering)
        named = {source.fact: fact for (source, _), fact in zip(applicable, facts, strict=True)}
        warned = {
            source.fact for source, policy in applicable if policy is not None and policy.mode == "warn"
        }
        return AdmissionFacts(**named, warn_only=frozenset(warned))

    async def _gather(
        self,
        source: IFactSource,
        policy: PolicySettings | None,
        subject: Subject,
        manifest: ManifestDocument | None,
    ) -> Any:
        """Return the source's fact; its type is the source's own."""
        gathering = Deferred.fromCoroutine(source.gather(subject, policy, manifest))
        gathering.addTimeout(GATHER_TIMEOUT, self.clock)
        try:
            return await gathering
        except TimeoutError:
            why = f"{source.fact}: no answer within {GATHER_TIMEOUT:g} s"
        except (OSError, RegistryError) as error:
            why = f"{source.fact}: {error}"
        _log.warn("{subject}: cannot check {why}", subject=str(subject), why=why)
        is_open = policy is not None and policy.on_error == "serve"
        return None if is_open else MissingFact(f"the rule cannot be checked, {why}")


def _bind(source: IFactSource, reader: RepositoryReader) -> IFactSource:
    """Return the source for the client of this request."""
    return IClientFactSource(source).bind(reader) if IClientFactSource.providedBy(source) else source
