"""Policies and recalls for what lies in the cache's directory, applied without a running mirror."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from attrs import evolve, field, frozen
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectError
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.iweb import IAgent, IResponse
from zope.interface import implementer

from ..admission.admit import AdmissionFacts, admit
from ..admission.cool_down import TagAges
from ..admission.fact_source import FactGatherer
from ..admission.lock_file import Unlisted
from ..admission.lock_source import LockReader, find_locked
from ..admission.policies import Policies
from ..admission.recall_files import read_recalls
from ..admission.recalls import explain
from ..admission.repository_reader import RepositoryReader
from ..admission.verdict import SERVE, Refuse, ServeInstead, Subject, Verdict
from ..body.in_memory import BytesBody
from ..config.settings import PolicySettings, Settings
from ..interfaces import Answer, IDocumentStore, IRegistry
from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.errors import Denied
from ..oci.reference import Reference, Repository, Tag
from ..oci.request import Blob, Manifest, RegistryRequest
from ..store import layout
from ..store.held_images import HeldImages, StoredImage
from ..store.packed_images import ExportGate
from ..store.tag_history import TagHistoryFiles, TagRecord
from .naming import ImageName, registry_names

T = TypeVar("T")


@frozen
class TagUnderPolicy:
    """A tag, its history, and the policy that holds for its cool-down.

    :ivar number: of the policy, in the order of the settings, from 1.
    :ivar withheld: the recalled digests.
    """

    image: ImageName
    subject: Subject
    record: TagRecord
    policy: PolicySettings
    number: int
    is_excepted: bool = False
    withheld: frozenset[Digest] = frozenset()

    @property
    def ages(self) -> TagAges:
        """The ages of the tag's digests under the policy."""
        assert self.policy.min_age is not None
        return TagAges(
            self.record.sightings,
            self.policy.min_age,
            self.policy.first_pull,
            excepted=self.is_excepted,
            withheld=self.withheld,
        )

    def decide(self, digest: Digest | None) -> Verdict:
        """Return what the policy would do if the tag named the digest, whether it is enforced or not."""
        return admit(evolve(self.subject, digest=digest), AdmissionFacts(ages=self.ages))


@frozen
class LockedTag:
    """A tag under a policy with a lock file.

    :ivar number: of the policy, in the order of the settings, from 1.
    :ivar fact: the locked digest, or that the file does not list the tag.
    """

    image: ImageName
    policy: PolicySettings
    number: int
    fact: Digest | Unlisted

    def decide(self, digest: Digest | None) -> Verdict:
        """Return what the lock file does if the tag names the digest, whether it is enforced or not."""
        subject = Subject("", Repository(self.image.repository.rest), self.image.reference, digest)
        return admit(subject, AdmissionFacts(locked=self.fact))


class LocalAdmission:
    """The policies of the settings, and the histories in the cache's directory.

    :ivar recalls: the recalls in force.
    """

    def __init__(self, settings: Settings, root: Path, now: float) -> None:
        self.recalls = read_recalls(root)
        self._settings = settings
        self._files = TagHistoryFiles(root)
        self._now = now

    def find(self, image: ImageName) -> TagUnderPolicy | None:
        """Return the tag with its policy, or None if no cool-down holds for it; by digest there is none."""
        if not isinstance(image.reference, Tag):
            return None
        repository = Repository(image.repository.rest)
        found: TagUnderPolicy | None = None
        for name, upstream in self._settings.upstreams.items():
            registry = registry_names(upstream)[0]
            if registry == image.repository.first and (found is None or not found.record.sightings):
                found = self._under_policy(registry, Subject(name, repository, image.reference)) or found
        return found

    def find_locked(self, image: ImageName) -> LockedTag | None:
        """Return what a lock file says about a tag, or None if no lock file decides about it.

        :raises Denied: when the lock file cannot be read.
        """
        if not isinstance(image.reference, Tag):
            return None
        subject = Subject("", Repository(image.repository.rest), image.reference)
        policy = Policies.of(image.repository.first, self._settings.policy).find(subject, "lock")
        if policy is None or policy.lock is None or policy.mode == "off":
            return None
        try:
            fact = find_locked(LockReader(policy.lock).current(), policy, image.repository, image.reference)
        except OSError as error:
            raise Denied(str(error)) from None
        number = self._settings.policy.index(policy) + 1
        return None if fact is None else LockedTag(image, policy, number, fact)

    def iter_tags(self) -> Iterator[TagUnderPolicy]:
        """Iterate over the tags with a history for which a cool-down holds."""
        for name, upstream in self._settings.upstreams.items():
            for repository, tag in sorted(self._files.iter_tags(name)):
                found = self._under_policy(registry_names(upstream)[0], Subject(name, repository, tag))
                if found is not None:
                    yield found

    def decide(self, image: ImageName, digest: Digest) -> Verdict:
        """Return what clients would get in place of the digest that the cache has for a tag."""
        found = self.find_locked(image) or self.find(image)
        return SERVE if found is None or found.policy.mode != "enforce" else found.decide(digest)

    def _under_policy(self, registry: str, subject: Subject) -> TagUnderPolicy | None:
        assert isinstance(subject.reference, Tag)
        record = self._files.read((subject.upstream, subject.repository, subject.reference))
        record = evolve(record, sightings=tuple(record.remembered(self._now)))
        policies = Policies.of(registry, self._settings.policy)
        policy = policies.find(subject, "min_age")
        if policy is None or policy.mode == "off":
            return None
        image = ImageName(Repository(f"{registry}/{subject.repository}"), subject.reference)
        current = evolve(subject, digest=record.sightings[-1].digest if record.sightings else None)
        is_excepted = policies.find_exception(current, policy, self._now) is not None
        number = self._settings.policy.index(policy) + 1
        withheld = frozenset(self.recalls.by_digest)
        return TagUnderPolicy(image, current, record, policy, number, is_excepted, withheld)


class LocalVerdicts:
    """Applies the rules about images to those in the cache's directory."""

    def __init__(self, settings: Settings, root: Path, now: float) -> None:
        self._settings = settings
        self._root = root
        self._documents = _LocalDocuments(root)
        self._clock = Clock()
        self._clock.advance(now)

    def check(self, name: ImageName, image: StoredImage) -> None:
        """:raises Denied: when the running mirror would refuse the manifest."""
        refusal = self.find_refusal(name, image)
        if refusal is not None:
            raise Denied(refusal.why)

    def find_refusal(self, name: ImageName, image: StoredImage) -> Refuse | None:
        """Return the reason for which the running mirror would refuse the manifest, or None."""
        registry, repository = name.repository.first, Repository(name.repository.rest)
        upstreams = self._settings.upstreams.items()
        upstream = next((each for each, its in upstreams if registry_names(its)[0] == registry), "")
        subject = Subject(upstream, repository, name.reference, image.digest)
        facts = _run(self._gather(registry, subject, image))
        verdict = admit(subject, facts.enforced())
        return verdict if isinstance(verdict, Refuse) else None

    async def _gather(self, registry: str, subject: Subject, image: StoredImage) -> AdmissionFacts:
        from .verdict_sources import make_verdict_sources  # which imports what asks a network

        sources = make_verdict_sources(
            registry, self._settings, self._documents, _at_once, self._clock, _no_network
        )
        gatherer = FactGatherer(sources, Policies.of(registry, self._settings.policy), self._clock)
        request = RegistryRequest(Manifest(subject.repository, image.digest))
        local = _LocalRegistry(HeldImages(self._root), registry)
        reader = RepositoryReader(local, subject.repository, request, _hold_nothing)
        applicable = gatherer.applicable(subject, is_replacement=False)
        return await gatherer.gather(subject, applicable, lambda: succeed(image.manifest), reader)


@implementer(IRegistry)
@frozen
class _LocalRegistry:
    """The contents of one registry in the cache's directory."""

    held: HeldImages
    registry: str

    async def fetch(self, request: RegistryRequest) -> Answer:
        match request.target:
            case Manifest() as target:
                data = self._manifest(Repository(f"{self.registry}/{target.repository}"), target.reference)
            case Blob() as target:
                data = _read(self.held.root / layout.data(target.digest))
            case _:
                data = None
        if data is None:
            raise request.target.unknown
        return Answer(BytesBody(data, Descriptor(size=len(data))))

    def _manifest(self, place: Repository, reference: Reference) -> bytes | None:
        if isinstance(reference, Tag):
            tagged = self.held.list_tags(place).get(reference)
            return None if tagged is None else self.held.read_image(place, tagged.digest).data
        return self.held.read_image(place, reference).data


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


def _no_network(*_: object) -> IAgent:
    return _NoNetwork()


async def _hold_nothing(_: Digest, __: int) -> bytes | None:
    return None


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


def check_not_recalled(root: Path, name: object, digests: Iterable[Digest]) -> None:
    """:raises Denied: when one of the contents was recalled."""
    recalls = read_recalls(root)
    for digest in digests:
        if recall := recalls.find(digest):
            raise Denied(f"{name}: {explain(recall, digest)}")


def make_export_gate(
    settings: Settings, root: Path, now: float, name: ImageName, note: Callable[[str], None] = lambda _: None
) -> ExportGate:
    """Return the gate for one image, whose parts raise ``Denied``.

    :param note: is given a sentence when another digest is served in a tag's place.
    """
    verdicts = LocalVerdicts(settings, root, now)

    def check_digests(digests: Iterable[Digest]) -> None:
        check_not_recalled(root, name, digests)

    def choose(digest: Digest) -> Digest:
        verdict = LocalAdmission(settings, root, now).decide(name, digest)
        if isinstance(verdict, Refuse):
            raise Denied(verdict.why)
        if isinstance(verdict, ServeInstead):
            note(f"{name}: {verdict.digest} in its place: {verdict.why}")
            return verdict.digest
        return digest

    def check(reference: Reference, image: StoredImage) -> None:
        verdicts.check(evolve(name, reference=reference), image)

    return ExportGate(check_digests, choose, check)
