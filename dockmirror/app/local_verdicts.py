"""The rules about digests, applied to the cache's directory without a running mirror or a network."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from attrs import evolve, field, frozen
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectError
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.iweb import IAgent, IResponse
from zope.interface import implementer

from ..admission.admit import FACT_NAMES, AdmissionFacts, MissingFact, Refuse, Subject, admit
from ..admission.image_limits import LIMIT_KEYS
from ..admission.lock_file import LockSource
from ..admission.policies import FactGatherer, IFactSource, Policies, RepositoryReader
from ..admission.recalls import explain, read_recalls
from ..admission.tag_facts import CoolDownContext, CoolDownSource, KnownDigestSource
from ..body.bodies import BytesBody
from ..config.image_rules import PolicySettings
from ..config.settings import Settings
from ..interfaces import Answer, IDocumentStore, IRegistry
from ..oci.digest import Descriptor, Digest
from ..oci.errors import Denied, RegistryError, Unavailable
from ..oci.manifest import parse_references
from ..oci.request import Blob, Manifest, Reference, RegistryRequest, Repository, Tag, Target
from ..store import layout
from ..store.held_images import HeldImages, StoredImage
from ..store.tag_history import LocalTagHistory
from .naming import ImageName

T = TypeVar("T")


@frozen
class RuleFinding:
    """A rule that refuses a digest, or that cannot be checked here.

    :ivar key: the key of the rule in a policy, or "recall".
    :ivar is_enforced: False if the policy only warns.
    """

    key: str
    why: str
    is_enforced: bool = True


@frozen
class ImageFinding:
    """A rule that refuses one image of an index, or that cannot be checked for it.

    :ivar platform: the platform that the index states, or the image's digest if it states none.
    """

    platform: str
    outcome: Literal["refused", "unknown"]
    finding: RuleFinding

    @property
    def is_served(self) -> bool:
        """True if the image is served all the same, with a warning."""
        return self.outcome == "refused" and not self.finding.is_enforced


@frozen
class Judgement:
    """The outcome of the rules for a digest.

    :ivar refusal: the refusal of a rule, of one that is enforced if there is any.
    :ivar unknown: the first rule that could not be checked, with the reason.
    :ivar images: the images of an index for which this differs from the index itself.
    """

    refusal: RuleFinding | None = None
    unknown: RuleFinding | None = None
    images: tuple[ImageFinding, ...] = ()

    @property
    def is_refused(self) -> bool:
        """True if an enforced rule refuses the digest."""
        return self.refusal is not None and self.refusal.is_enforced


def judge_index(index: Judgement, images: Mapping[str, Judgement]) -> Judgement:
    """Return the judgement of an index, of which a client pulls one of these images.

    The index is refused if each image is, and unknown if none is known to be served.
    """
    if index.is_refused or not images:
        return index
    found = tuple(
        finding for platform, each in images.items() if (finding := _find_rule(platform, each)) is not None
    )
    if len(found) < len(images):
        return evolve(index, images=found)
    if all(each.outcome == "refused" for each in found):
        weakest = min(found, key=lambda each: each.finding.is_enforced)
        refusal = evolve(weakest.finding, why=f"no image of it is served; {_explain(weakest)}")
        if refusal.is_enforced:
            return evolve(index, refusal=refusal)
        rest = tuple(each for each in found if not each.is_served)
        return evolve(index, refusal=index.refusal or weakest.finding, images=rest)
    if not any(each.is_served for each in found):
        first = next(each for each in found if each.outcome == "unknown")
        index = evolve(index, unknown=index.unknown or evolve(first.finding, why=_explain(first)))
    return evolve(index, images=found)


def _find_rule(platform: str, image: Judgement) -> ImageFinding | None:
    """Return the rule that decides about an image; None if it is served without a warning."""
    if image.refusal is not None and (image.is_refused or image.unknown is None):
        return ImageFinding(platform, "refused", image.refusal)
    return None if image.unknown is None else ImageFinding(platform, "unknown", image.unknown)


def _explain(image: ImageFinding) -> str:
    return f"{image.platform}: {image.finding.why}"


class LocalVerdicts:
    """Applies the rules about digests to the images in the cache's directory."""

    def __init__(self, settings: Settings, root: Path, now: float) -> None:
        self._settings = settings
        self._held = HeldImages(root)
        self._recalls = read_recalls(root)
        self._documents = _LocalDocuments(root)
        self._clock = Clock()
        self._clock.advance(now)
        self._gatherers: dict[str, FactGatherer] = {}

    def check(self, name: ImageName, image: StoredImage) -> None:
        """:raises Denied: when the running mirror would refuse the manifest of an image that is exported."""
        subject, gatherer = self._subject(name, image.digest), self._gatherer(name.repository.first)
        registry = _LocalRegistry(self._held, name.repository.first, lambda target: target.unknown())
        found = gatherer.applicable(subject, is_replacement=False)
        applicable = [each for each in found if each[0].fact != KnownDigestSource.fact]
        verdict = admit(subject, _gather(gatherer, subject, applicable, image, registry).enforced())
        if isinstance(verdict, Refuse):
            raise Denied(verdict.why)

    def judge(self, name: ImageName, digest: Digest | None, platform: str = "") -> Judgement:
        """Return what the rules say of a digest, and of the images of an index that is held.

        :param digest: None if it is not known.
        :param platform: of the image that the client pulls; empty if that is not known.
        """
        if digest is None:
            return self._judge_unknown(name)
        image = self._held.read_image(name.repository, digest)
        images = {_describe_platform(each): each for each in _list_pulled(image, platform)}
        return judge_index(
            self._judge_image(name, image),
            {stated: self._judge_listed(name.repository, each) for stated, each in images.items()},
        )

    def _judge_unknown(self, name: ImageName) -> Judgement:
        subject, gatherer = self._subject(name, None), self._gatherer(name.repository.first)
        for source, policy in gatherer.applicable(subject, is_replacement=False):
            if source.fact != KnownDigestSource.fact:
                missing = MissingFact.of(source.setting, "its digest is not known")
                return Judgement(
                    unknown=RuleFinding(source.setting, missing.why, is_enforced=policy.mode == "enforce")
                )
        return Judgement()

    def _judge_listed(self, repository: Repository, image: StoredImage) -> Judgement:
        """Return what recalls and rules say of an image that an index lists; it is known as the index is."""
        references = None if image.data is None else parse_references(image.data)
        if recall := self._recalls.find(image.digest, references):
            return Judgement(RuleFinding("recall", explain(recall, image.digest)))
        return self._judge_image(ImageName(repository, image.digest), image, KnownDigestSource.fact)

    def _judge_image(self, name: ImageName, image: StoredImage, passed: str = "") -> Judgement:
        """Return what the rules say of one manifest.

        :param passed: a kind of rule that is known to be kept.
        """
        subject, gatherer = self._subject(name, image.digest), self._gatherer(name.repository.first)
        found = gatherer.applicable(subject, is_replacement=False)
        applicable = [each for each in found if each[0].fact != passed]
        if not applicable:
            return Judgement()

        def missing(target: Target) -> RegistryError:
            is_itself = isinstance(target, Manifest) and target.digest == image.digest
            return target.unknown() if is_itself else Unavailable("the cache does not have it")

        registry = _LocalRegistry(self._held, name.repository.first, missing)
        strict = [(source, policy.model_copy(update={"on_error": "refuse"})) for source, policy in applicable]
        facts = _gather(gatherer, subject, strict, image, registry)
        keys = {source.fact: source.setting for source, _ in applicable}
        return _judge(subject, facts, keys, is_held=image.data is not None)

    def _subject(self, name: ImageName, digest: Digest | None) -> Subject:
        upstreams = self._settings.upstreams.items()
        names = (each for each, its in upstreams if its.canonical == name.repository.first)
        return Subject(next(names, ""), Repository(name.repository.rest), name.reference, digest)

    def _gatherer(self, registry: str) -> FactGatherer:
        if registry not in self._gatherers:
            policies = Policies.of(registry, self._settings.policy)
            sources = self._make_sources(registry, policies)
            self._gatherers[registry] = FactGatherer(sources, policies, self._clock)
        return self._gatherers[registry]

    def _make_sources(self, registry: str, policies: Policies) -> Sequence[IFactSource]:
        from .admission import make_verdict_sources  # which imports what asks a network

        async def read_manifest(repository: Repository, digest: Digest) -> bytes | None:
            return self._held.read_image(Repository(f"{registry}/{repository}"), digest).data

        history = LocalTagHistory(self._held.root, self._clock, _at_once)
        cool_down = CoolDownSource(
            CoolDownContext(
                history, policies, None, _hold_nothing, read_manifest, lambda _: None, self._clock,
                lambda: self._recalls,
            )
        )  # fmt: skip
        return [
            KnownDigestSource(
                cool_down, history, read_manifest, LockSource(policies).list_locked, self._clock
            ),
            *make_verdict_sources(
                registry, self._settings, self._documents, _at_once, self._clock, lambda *_: _NoNetwork()
            ),
        ]


def _gather(
    gatherer: FactGatherer,
    subject: Subject,
    applicable: Sequence[tuple[IFactSource, PolicySettings]],
    image: StoredImage,
    registry: IRegistry,
) -> AdmissionFacts:
    reader = RepositoryReader(
        registry, subject.repository, RegistryRequest(Manifest(subject.repository, image.digest)), _peek
    )
    return _run(gatherer.gather(subject, applicable, lambda: succeed(image.manifest), reader))


def _judge(subject: Subject, facts: AdmissionFacts, keys: Mapping[str, str], is_held: bool) -> Judgement:
    """Return the judgement by the facts; the limits on an image are known of one that is held only.

    :param keys: the keys of a policy by the kinds of rules that they set.
    """
    found = {name: getattr(facts, name) for name in FACT_NAMES}
    missing = {name: fact.why for name, fact in found.items() if isinstance(fact, MissingFact)}
    if not is_held:
        limits = [key for key in LIMIT_KEYS if found[key] is not None]
        missing |= {key: MissingFact.of(key, "the cache does not have its manifest").why for key in limits}
    unknown = next((Refuse(why, name) for name, why in missing.items()), None)
    known = evolve(facts, **dict.fromkeys(missing))  # type: ignore[arg-type]
    verdicts = (admit(subject, each) for each in (known.enforced(), known))
    refusal = next((each for each in verdicts if isinstance(each, Refuse)), None)

    def describe(refuse: Refuse | None) -> RuleFinding | None:
        if refuse is None:
            return None
        return RuleFinding(keys[refuse.rule], refuse.why, refuse.rule not in facts.warn_only)

    return Judgement(describe(refusal), describe(unknown))


def _list_pulled(index: StoredImage, platform: str) -> list[StoredImage]:
    """Return the images of an index of which a client pulls one: those for the platform, or for all."""
    children = [each for each in index.children if each.platform is None or each.platform.is_real]
    return [each for each in children if str(each.platform or "") == platform] or children


def _describe_platform(image: StoredImage) -> str:
    return str(image.platform or image.digest)


@implementer(IRegistry)
@frozen
class _LocalRegistry:
    """The contents of one registry in the cache's directory.

    :ivar missing: returns the error for what is not there.
    """

    held: HeldImages
    registry: str
    missing: Callable[[Target], RegistryError]

    async def fetch(self, request: RegistryRequest) -> Answer:
        match request.target:
            case Manifest() as target:
                data = self._manifest(Repository(f"{self.registry}/{target.repository}"), target.reference)
            case Blob() as target:
                data = _read(self.held.root / layout.data(target.digest))
            case _:
                data = None
        if data is None:
            raise self.missing(request.target)
        return Answer(BytesBody(data, Descriptor(size=len(data))))

    def _manifest(self, place: Repository, reference: Reference) -> bytes | None:
        digest = self.held.find_digest(place, reference)
        return None if digest is None else self.held.read_image(place, digest).data


@implementer(IDocumentStore)
@frozen
class _LocalDocuments:
    """The documents of the running mirror; a command only adds to them in memory."""

    root: Path
    added: dict[str, bytes] = field(factory=dict)

    async def read(self, name: str) -> bytes | None:
        return self.added.get(name) or _read(self.root / layout.document(name))

    async def write(self, name: str, data: bytes) -> None:
        self.added[name] = data


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


@implementer(IAgent)
class _NoNetwork:
    """Fails each request: commands leave it to the running mirror to ask the policy server."""

    def request(self, *_: Any) -> Deferred[IResponse]:
        return fail(ConnectError(string="pull the image through the running mirror first"))


async def _peek(_: Digest, __: int) -> bytes | None:
    return None


async def _hold_nothing(_: Repository, __: Tag, ___: Digest) -> None:
    """Leave it to the running mirror to keep manifests."""


def _at_once(call: Callable[[], T], /) -> Awaitable[T]:
    return succeed(call())


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Return the outcome of work that waits for nothing."""
    outcomes: list[T | Failure] = []
    Deferred.fromCoroutine(work).addBoth(outcomes.append)
    (outcome,) = outcomes
    if isinstance(outcome, Failure):
        outcome.raiseException()
    return outcome
