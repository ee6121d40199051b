"""Facts about subjects, gathered concurrently and within a time limit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import Attribute, Interface

from ..concurrency.waiting import gather
from ..config.image_rules import PolicySettings
from ..oci.errors import RegistryError, summarize_error
from ..oci.manifest import ManifestDocument
from .admit import AdmissionFacts
from .policies import Policies
from .repository_reader import RepositoryReader
from .verdict import MissingFact, Subject

GATHER_TIMEOUT = 3.0
"""Seconds that a source has to give its fact."""
_OWN_REASON = "the reason is in the mirror's log"
"""Stands for an error of the mirror's own machine, which may name its files."""
LoadManifest = Callable[[], Awaitable[ManifestDocument | None]]
_log = Logger()


class IFactSource(Interface):
    """A source of one kind of fact."""

    fact: str = Attribute("The name of the field of ``AdmissionFacts`` that it fills.")
    setting: str = Attribute("The key that turns its rule on in a policy.")
    is_about_tags: bool = Attribute("True if it says which digest a tag is, False if it judges a digest.")
    needs_manifest: bool = Attribute("True if it needs the manifest itself.")

    async def gather(
        subject: Subject,
        policy: PolicySettings,
        manifest: ManifestDocument | None,
        reader: RepositoryReader,
    ) -> Any:
        """Return the fact, or None if the rule does not apply.

        :param policy: the policy that holds.
        :param manifest: None if it is not needed, or cannot be read.
        :param reader: reads more of the repository, as the client that requests the subject.
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

        :param reader: reads more of the repository as the client.
        """
        manifest = None
        if any(source.needs_manifest for source, _ in applicable):
            manifest = await load_manifest()
        facts = await gather(
            self._gather(source, policy, subject, manifest, reader) for source, policy in applicable
        )
        named = {source.fact: fact for (source, _), fact in zip(applicable, facts, strict=True)}
        warned = frozenset(source.fact for source, policy in applicable if policy.mode == "warn")
        return AdmissionFacts(**named, warn_only=warned)

    async def _gather(
        self,
        source: IFactSource,
        policy: PolicySettings,
        subject: Subject,
        manifest: ManifestDocument | None,
        reader: RepositoryReader,
    ) -> Any:
        """Return the source's fact; its type is the source's own."""
        gathering = Deferred.fromCoroutine(source.gather(subject, policy, manifest, reader))
        gathering.addTimeout(GATHER_TIMEOUT, self.clock)
        try:
            return await gathering
        except TimeoutError:
            missing = MissingFact.of(source.setting, f"no answer within {GATHER_TIMEOUT:g} s")
        except RegistryError as error:
            missing = MissingFact.of(source.setting, summarize_error(error))
        except OSError as error:
            missing = MissingFact.of(source.setting, str(error), _OWN_REASON)
        _log.warn("{subject}: {why}", subject=str(subject), why=missing.why)
        return None if policy.on_error == "serve" else missing
