"""The registry in front of the cache that decides by ``admit`` which manifests are served."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from attrs import evolve, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from ..body.bodies import BytesBody
from ..concurrency.backoff import is_outage
from ..concurrency.coroutines import TTLCache
from ..interfaces import Answer, IRegistry
from ..oci.digest import Digest
from ..oci.errors import Denied, ManifestUnknown, RegistryError
from ..oci.header_fields import CacheResult, CacheStatus
from ..oci.manifest import ManifestDocument, is_accepted_kind
from ..oci.media import DOCKER_LIST, OCI_INDEX, accepts
from ..oci.request import Manifest, RegistryRequest, Repository, Tag
from .admit import SERVE, Refuse, Serve, ServeInstead, Subject, Verdict, judge
from .policies import FactGatherer, RepositoryReader
from .recalls import Recalled

REPLACEMENT_TTL = 1.0
"""Seconds for which a fresh tag that is replaced is neither looked up nor decided about again."""
DECISION_TTL = 10.0 - REPLACEMENT_TTL
"""Seconds for which a decision is kept, as long as the generation stays.

What begins no generation, such as another lock file or the end of a verdict, counts within ten seconds.
"""
_MOST = 10_000
_log = Logger()


@frozen
class AdmissionContext:
    """Everything that the decisions about one upstream's images need.

    :ivar upstream: its name in the settings.
    :ivar generation: returns the number that voids decisions which were made before.
    :ivar is_whole: returns whether an image is held with everything that a client requests after it.
    :ivar is_given: asks the upstream whether it gives the content to this client; raises its refusal.
    :ivar read_manifest: returns a held manifest, or None.
    :ivar peek: returns the held bytes of a digest, up to a limit, or None.
    :ivar count: counts the "refused", "replaced", "would_refuse" or "would_replace" of a rule.
    """

    upstream: str
    gatherer: FactGatherer
    generation: Callable[[], int]
    is_whole: Callable[[Repository, Digest], Awaitable[bool]]
    is_given: Callable[[RegistryRequest], Awaitable[bool]]
    read_manifest: Callable[[Repository, Digest], Awaitable[bytes | None]]
    peek: Callable[[Digest, int], Awaitable[bytes | None]]
    count: Callable[[str, str], None]
    clock: IReactorTime


@frozen
class _Decision:
    """A verdict, and those of rules that only warn.

    :ivar generation: the one in which it was made; it holds in no other one.
    """

    generation: int
    verdict: Verdict
    warning: Refuse | ServeInstead | None = None

    @property
    def is_plain(self) -> bool:
        """Return whether the manifest is served, and no rule says anything about it."""
        return self.verdict is SERVE and self.warning is None


@frozen
class _Replacement:
    """A manifest that is served in place of the one that a tag names.

    :ivar moved: the tag with the digest that it names.
    :ivar headers: the header fields that say so.
    """

    moved: Subject
    instead: ServeInstead
    target: Manifest
    headers: tuple[tuple[str, str], ...]


_ReplacementKey = tuple[Manifest, tuple[str, ...]]
"""The tag, and the types that the client accepts."""


@implementer(IRegistry)
class AdmissionRegistry:
    """Serves a manifest, another one in its place, or refuses.

    The registry below is asked first: the decision holds for fresh, stale and offline answers alike.
    """

    def __init__(self, registry: IRegistry, context: AdmissionContext) -> None:
        self._registry = registry
        self._context = context
        self._replaced: TTLCache[_ReplacementKey, tuple[int, _Replacement]] = TTLCache(context.clock, _MOST)
        self._obtainable: TTLCache[Subject, bool] = TTLCache(context.clock, _MOST)
        self._decisions: TTLCache[tuple[Subject, bool], _Decision] = TTLCache(context.clock, _MOST)

    async def fetch(self, request: RegistryRequest) -> Answer:
        """:raises Denied: when nothing is served, with the rule, the reason, and what to do."""
        if isinstance(request.target, Manifest):
            return await self._fetch_manifest(request, request.target)
        return await self._registry.fetch(request)

    async def _fetch_manifest(self, request: RegistryRequest, target: Manifest) -> Answer:
        kept = None if request.revalidate else self._replaced.get((target, request.accept))
        if kept is not None and kept[0] == self._context.generation():
            self._context.count(kept[1].instead.rule, "replaced")
            return await self._fetch_replacement(request, kept[1])
        try:
            answer = await self._registry.fetch(request)
        except RegistryError as error:
            if isinstance(target.reference, Tag) and is_outage(error):
                return await self._serve_admitted(request, target, error)
            raise
        try:
            digest = target.digest or answer.body.descriptor.digest
            subject = Subject(self._context.upstream, target.repository, target.reference, digest)
            decision = await self._decide(request, subject, answer)
        except BaseException:
            answer.body.discard()
            raise
        match decision.verdict:
            case Serve():
                if decision.warning is None:
                    return answer
                return evolve(answer, headers=(*answer.headers, _warn(decision.warning)))
            case ServeInstead() as instead:
                answer.body.discard()
                is_fresh = answer.cache is not None and answer.cache.result is CacheResult.HIT
                generation = decision.generation if is_fresh else None
                replaced = await self._serve_instead(request, subject, instead, generation)
                # the client that has the tag revalidated is told the outcome of that
                return evolve(replaced, cache=answer.cache) if request.revalidate else replaced
            case Refuse() as refusal:
                answer.body.discard()
                raise Denied(refusal.why)

    async def _serve_admitted(
        self, request: RegistryRequest, target: Manifest, error: RegistryError
    ) -> Answer:
        """Serve what the rules give a tag while the upstream does not answer, or raise its error."""
        subject = Subject(self._context.upstream, target.repository, target.reference)
        decision = await self._decide(request, subject, None)
        if not isinstance(decision.verdict, ServeInstead):
            raise error
        try:
            return await self._serve_instead(request, subject, decision.verdict)
        except RegistryError:
            raise error from None

    async def _serve_instead(
        self,
        request: RegistryRequest,
        subject: Subject,
        instead: ServeInstead,
        generation: int | None = None,
    ) -> Answer:
        """Serve another digest of the repository in place of the tag's current one.

        :param generation: in which this is kept for a moment; None if the tag must be looked up again.
        :raises Denied: when it is refused itself, or neither held whole nor given by the upstream.
        :raises ManifestUnknown: when the client does not accept it.
        """
        digest = await self._choose_accepted(request, subject.repository, instead.digest)
        newer = [] if subject.digest is None else [("Dockmirror-Newer-Digest", str(subject.digest))]
        target = Manifest(subject.repository, digest)
        replacement = _Replacement(subject, instead, target, (_warn(instead), *newer))
        chosen = evolve(subject, digest=digest)
        answer = await self._fetch_replacement(request, replacement, chosen)
        try:
            if not is_accepted_kind(request.accept, answer.body.descriptor.media_type):
                raise _not_accepted(digest)
            decision = await self._decide(request, chosen, answer, is_replacement=True)
        except BaseException:
            answer.body.discard()
            raise
        if isinstance(decision.verdict, Refuse):
            answer.body.discard()
            raise Denied(decision.verdict.why)
        if generation is not None and decision.is_plain:
            key = evolve(target, reference=subject.reference), request.accept
            self._replaced.put(key, (generation, replacement), REPLACEMENT_TTL)
        return answer

    async def _fetch_replacement(
        self, request: RegistryRequest, replacement: _Replacement, unchecked: Subject | None = None
    ) -> Answer:
        """Fetch a replacement, with what is said about it in header fields.

        :param unchecked: its subject, if it is not known whether it can be had.
        :raises Denied: when it is neither held whole nor given by the upstream.
        """
        request = evolve(request, target=replacement.target)
        try:
            if unchecked is not None:
                await self._check_obtainable(request, unchecked)
            answer = await self._registry.fetch(request)
        except RegistryError as error:
            if error.status not in (403, 404) or isinstance(error, Recalled):
                raise
            moved, instead = replacement.moved, replacement.instead
            raise Denied(
                f"{moved} is not served: {instead.why}, and the admitted {instead.digest} is neither held"
                " whole nor given by its registry any more; use another version"
            ) from error
        cache = answer.cache
        if cache is not None:  # its digest may be kept for good, and the tag may not
            cache = CacheStatus(cache.result, cache.age, cache.stale_reason)
        return evolve(answer, cache=cache, headers=answer.headers + replacement.headers)

    async def _choose_accepted(
        self, request: RegistryRequest, repository: Repository, digest: Digest
    ) -> Digest:
        """Return the digest, or that of the index's image for a client that accepts no index."""
        if all(accepts(request.accept, kind) for kind in (OCI_INDEX, DOCKER_LIST)):
            return digest
        data = await self._context.read_manifest(repository, digest)
        manifest = None if data is None else ManifestDocument.parse(data)
        if manifest is None or is_accepted_kind(request.accept, manifest.media_type):
            return digest
        chosen = manifest.choose_accepted(request.accept)
        if chosen is None:
            raise _not_accepted(digest)
        return chosen

    async def _check_obtainable(self, request: RegistryRequest, replacement: Subject) -> None:
        """Check that an image is held whole, or that the upstream gives it, or that it was so a moment ago.

        :raises RegistryError: the upstream's refusal.
        """
        if self._obtainable.get(replacement):
            return
        digest = replacement.digest
        if digest is None or not await self._context.is_whole(replacement.repository, digest):
            await self._context.is_given(request)
        self._obtainable.put(replacement, True, DECISION_TTL)

    async def _decide(
        self, request: RegistryRequest, subject: Subject, answer: Answer | None, is_replacement: bool = False
    ) -> _Decision:
        """Return the decision about a subject, made anew or kept from a moment ago."""
        generation, key = self._context.generation(), (subject, is_replacement)
        decision = self._decisions.get(key)
        if decision is None or decision.generation != generation:
            verdict, warning = await self._judge(request, subject, answer, is_replacement)
            decision = _Decision(generation, verdict, warning)
            if not isinstance(verdict, Refuse):
                self._decisions.put(key, decision, DECISION_TTL)
        if not decision.is_plain:
            self._report(subject, decision)
        return decision

    async def _judge(
        self, request: RegistryRequest, subject: Subject, answer: Answer | None, is_replacement: bool
    ) -> tuple[Verdict, Refuse | ServeInstead | None]:
        """Return the verdict, and that of the rules that only warn if it is another one."""
        gatherer = self._context.gatherer
        applicable = gatherer.applicable(subject, is_replacement)
        if not applicable:
            return SERVE, None
        reader = RepositoryReader(self._registry, subject.repository, request, self._context.peek)
        facts = await gatherer.gather(subject, applicable, lambda: self._load(subject, answer), reader)
        return judge(subject, facts)

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


def _not_accepted(digest: Digest) -> ManifestUnknown:
    return ManifestUnknown(f"the admitted {digest} is an index, which the client does not accept")


def _warn(verdict: Refuse | ServeInstead) -> tuple[str, str]:
    """Return the header field that tells the client why."""
    why = verdict.why.replace("\\", "/").replace('"', "'")  # it may have words of others in it
    return "Warning", f'299 - "{why}"'
