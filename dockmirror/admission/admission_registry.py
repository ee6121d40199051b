"""The registry in front of the cache that decides by ``admit`` which manifests are served."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from attrs import evolve, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from ..body.in_memory import BytesBody
from ..concurrency.backoff import is_outage
from ..concurrency.caching import TTLCache
from ..interfaces import Answer, IRegistry
from ..oci.digest import Digest
from ..oci.errors import Denied, RegistryError
from ..oci.manifest import ManifestDocument
from ..oci.reference import Repository, Tag
from ..oci.request import Manifest, RegistryRequest
from .admit import admit
from .fact_source import FactGatherer
from .verdict import SERVE, Refuse, Serve, ServeInstead, Subject, Verdict

DECISION_TTL = 10.0
"""Seconds for which a decision is kept, as long as the generation stays."""
_MOST = 10_000
_log = Logger()


class Count(Protocol):
    """Counts a decision."""

    def __call__(self, rule: str, outcome: str) -> None:
        """:param outcome: "refused", "replaced", "would_refuse" or "would_replace"."""


@frozen
class AdmissionContext:
    """Everything that the decisions about one upstream's images need.

    :ivar upstream: its name in the settings.
    :ivar generation: returns the number that voids decisions which were made before.
    :ivar is_whole: returns whether an image is held with everything that a client requests after it.
    :ivar read_manifest: returns a held manifest, or None.
    """

    upstream: str
    gatherer: FactGatherer
    generation: Callable[[], int]
    is_whole: Callable[[Repository, Digest], Awaitable[bool]]
    read_manifest: Callable[[Repository, Digest], Awaitable[bytes | None]]
    count: Count
    clock: IReactorTime


@frozen
class _Decision:
    """A verdict, and those of rules that only warn."""

    verdict: Verdict
    warning: Refuse | ServeInstead | None = None


@implementer(IRegistry)
class AdmissionRegistry:
    """Serves a manifest, another one in its place, or refuses.

    The registry below is asked first: the decision holds for fresh, stale and offline answers alike.
    """

    def __init__(self, registry: IRegistry, context: AdmissionContext) -> None:
        self._registry = registry
        self._context = context
        self._decisions: TTLCache[tuple[int, Subject, bool], _Decision] = TTLCache(context.clock, _MOST)

    async def fetch(self, request: RegistryRequest) -> Answer:
        """:raises Denied: when nothing is served, with the rule, the reason, and what to do."""
        if isinstance(request.target, Manifest):
            return await self._fetch_manifest(request, request.target)
        return await self._registry.fetch(request)

    async def _fetch_manifest(self, request: RegistryRequest, target: Manifest) -> Answer:
        subject = Subject(self._context.upstream, target.repository, target.reference)
        try:
            answer = await self._registry.fetch(request)
        except RegistryError as error:
            if isinstance(target.reference, Tag) and is_outage(error):
                return await self._serve_admitted(request, subject, error)
            raise
        try:
            subject = evolve(subject, digest=target.digest or answer.body.descriptor.digest)
            decision = await self._decide(subject, answer)
        except BaseException:
            answer.body.discard()
            raise
        match decision.verdict:
            case Serve():
                return _with_warning(answer, decision.warning)
            case ServeInstead() as instead:
                answer.body.discard()
                return await self._serve_instead(request, subject, instead)
            case Refuse() as refusal:
                answer.body.discard()
                raise Denied(refusal.why)

    async def _serve_admitted(
        self, request: RegistryRequest, subject: Subject, error: RegistryError
    ) -> Answer:
        """Serve what the rules give a tag while the upstream does not answer, or raise its error."""
        decision = await self._decide(subject, None)
        if not isinstance(decision.verdict, ServeInstead):
            raise error
        try:
            return await self._serve_instead(request, subject, decision.verdict)
        except RegistryError:
            raise error from None

    async def _serve_instead(
        self, request: RegistryRequest, subject: Subject, instead: ServeInstead
    ) -> Answer:
        """Serve another digest of the repository in place of the tag's current one.

        :raises Denied: when it is refused itself, or neither held whole nor given by the upstream.
        """
        assert isinstance(request.target, Manifest)
        context, target = self._context, evolve(request.target, reference=instead.digest)
        replacement = evolve(subject, digest=instead.digest)
        try:
            if not await context.is_whole(target.repository, instead.digest):
                (await self._registry.fetch(evolve(request, target=target, head=True))).body.discard()
            answer = await self._registry.fetch(evolve(request, target=target))
        except RegistryError as error:
            if error.status not in (403, 404):
                raise
            raise Denied(
                f"{subject} is not served: {instead.why}, and the admitted {instead.digest} is neither held"
                " whole nor given by its registry any more; use another version"
            ) from error
        try:
            decision = await self._decide(replacement, answer, is_replacement=True)
        except BaseException:
            answer.body.discard()
            raise
        if isinstance(decision.verdict, Refuse):
            answer.body.discard()
            raise Denied(decision.verdict.why)
        cache = None if answer.cache is None else evolve(answer.cache, immutable=False)
        return _with_warning(evolve(answer, cache=cache), instead, subject.digest)

    async def _decide(
        self, subject: Subject, answer: Answer | None, is_replacement: bool = False
    ) -> _Decision:
        """Return the decision about a subject, made anew or kept from a moment ago."""
        gatherer = self._context.gatherer
        applicable = gatherer.applicable(subject, is_replacement)
        if not applicable:
            return _Decision(SERVE)
        key = self._context.generation(), subject, is_replacement
        decision = self._decisions.get(key)
        if decision is None:
            facts = await gatherer.gather(subject, applicable, lambda: self._load(subject, answer))
            verdict, everything = admit(subject, facts.enforced()), admit(subject, facts)
            warning = everything if everything != verdict and not isinstance(everything, Serve) else None
            decision = _Decision(verdict, warning)
            if not isinstance(verdict, Refuse):
                self._decisions.put(key, decision, DECISION_TTL)
        self._report(subject, decision)
        return decision

    async def _load(self, subject: Subject, answer: Answer | None) -> ManifestDocument | None:
        if answer is not None and isinstance(answer.body, BytesBody):
            return ManifestDocument.parse(answer.body.data)
        if subject.digest is None:
            return None
        data = await self._context.read_manifest(subject.repository, subject.digest)
        return None if data is None else ManifestDocument.parse(data)

    def _report(self, subject: Subject, decision: _Decision) -> None:
        for verdict, refused, replaced in (
            (decision.verdict, "refused", "replaced"),
            (decision.warning, "would_refuse", "would_replace"),
        ):
            if isinstance(verdict, Refuse | ServeInstead):
                self._context.count(verdict.rule, refused if isinstance(verdict, Refuse) else replaced)
        if decision.warning is not None:
            _log.warn("{subject}: {why}", subject=str(subject), why=decision.warning.why)


def _with_warning(
    answer: Answer, verdict: Refuse | ServeInstead | None, newer: Digest | None = None
) -> Answer:
    """Return the answer with what the decision says about it, in header fields."""
    if verdict is None:
        return answer
    fields = [("Warning", f'299 - "{verdict.why}"')]
    if newer is not None:
        fields.append(("Dockmirror-Newer-Digest", str(newer)))
    return evolve(answer, headers=(*answer.headers, *fields))
