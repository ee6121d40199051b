"""Policies and recalls for what lies in the cache's directory, applied without a running mirror."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

from attrs import evolve, frozen

from ..admission.admit import (
    AdmissionFacts,
    MissingFact,
    Refuse,
    ServeInstead,
    Subject,
    TagAges,
    Unlisted,
    Verdict,
    admit,
    admitted_digests,
    ages_at,
    judge,
)
from ..admission.lock_file import LockReader, find_locked
from ..admission.policies import Policies
from ..admission.recalls import Recall, Recalls, explain, fallbacks, read_recalls
from ..config.image_rules import PolicySettings
from ..config.settings import Settings
from ..oci.digest import Digest
from ..oci.errors import Denied
from ..oci.manifest import parse_references
from ..oci.request import Reference, Repository, Tag
from ..store.held_images import HeldImages, StoredImage
from ..store.packed_images import ExportGate
from ..store.tag_history import TagHistoryFiles, TagRecord
from .local_verdicts import LocalVerdicts
from .naming import ImageName, history_keys

_Key = tuple[Repository, Tag]


@frozen
class TagUnderPolicy:
    """A tag, its history, and the policy that holds for its cool-down.

    :ivar number: of the policy, in the order of the settings, from 1.
    :ivar policies: all policies for the registry.
    :ivar now: the time at which ``decide`` decides.
    :ivar withheld: its admitted digests that were recalled, or that refer to something recalled.
    """

    image: ImageName
    subject: Subject
    record: TagRecord
    policy: PolicySettings
    number: int
    policies: Policies
    now: float
    withheld: frozenset[Digest] = frozenset()

    @property
    def ages(self) -> TagAges:
        """The ages of the tag's digests under the policy, without its exceptions."""
        assert self.policy.min_age is not None
        return TagAges(
            self.record.sightings, self.policy.min_age, self.policy.first_pull, withheld=self.withheld
        )

    def decide(self, digest: Digest | None) -> Verdict:
        """Return what the policy would do if the tag named the digest, whether it is enforced or not."""
        return admit(evolve(self.subject, digest=digest), AdmissionFacts(ages=self.ages_of(digest)))

    def ages_of(self, digest: Digest | None) -> TagAges:
        """Return the ages if the tag names the digest, with the exceptions of now."""
        return self._with_exceptions(digest, self.ages, self.now)

    def is_excepted(self, digest: Digest | None, time: float) -> bool:
        """Return whether an exception of the policy covered the digest then."""
        subject = evolve(self.subject, digest=digest)
        return self.policies.find_exception(subject, self.policy, time) is not None

    def was_seen(self, time: float) -> bool:
        """Return whether the mirror had seen the tag by then."""
        return any(each.first <= time for each in self.record.sightings)

    def find_ages(self, time: float, digest: Digest | None) -> tuple[Digest | None, TagAges]:
        """Return the digest that the tag named at a time, and the ages with the exceptions of then.

        :param digest: counts if the mirror had not seen the tag.
        """
        ages = ages_at(self.ages, time)
        if ages.sightings:
            digest = ages.sightings[-1].digest
        return digest, self._with_exceptions(digest, ages, time)

    def _with_exceptions(self, digest: Digest | None, ages: TagAges, time: float) -> TagAges:
        return evolve(ages, excepted=self.is_excepted(digest, time))


@frozen
class LockedTag:
    """The lock file of a policy, and what it says about a tag.

    :ivar number: of the policy, in the order of the settings, from 1.
    """

    policy: PolicySettings
    number: int
    fact: Digest | Unlisted | MissingFact


@frozen
class TagRules:
    """The rules that say which digest a tag is served as; there are none about a pull by digest.

    :ivar locked: None if no lock file decides about the tag.
    :ivar cooled: None if no cool-down holds for the tag, or a lock file that is enforced comes before it.
    """

    image: ImageName
    locked: LockedTag | None
    cooled: TagUnderPolicy | None

    def judge(self, digest: Digest | None) -> tuple[Verdict, Refuse | ServeInstead | None]:
        """Return the verdict if the tag names the digest, and that of the rules that only warn."""
        cooled = self.cooled
        return self._judge(digest, None if cooled is None else cooled.ages_of(digest))

    def judge_at(
        self, time: float, digest: Digest | None
    ) -> tuple[Digest | None, Verdict, Refuse | ServeInstead | None]:
        """Return the digest that the tag named at a time, and what the rules would have done then.

        :param digest: counts if the mirror had not seen the tag.
        """
        ages = None
        if self.cooled is not None:
            digest, ages = self.cooled.find_ages(time, digest)
        return digest, *self._judge(digest, ages)

    def _judge(
        self, digest: Digest | None, ages: TagAges | None
    ) -> tuple[Verdict, Refuse | ServeInstead | None]:
        subject = Subject("", Repository(self.image.repository.rest), self.image.reference, digest)
        rules = {"locked": self.locked, "ages": self.cooled}
        warned = frozenset(name for name, each in rules.items() if each and each.policy.mode == "warn")
        locked = None if self.locked is None else self.locked.fact
        return judge(subject, AdmissionFacts(ages=ages, locked=locked, warn_only=warned))


class LocalAdmission:
    """The policies of the settings, and the histories in the cache's directory.

    :ivar recalls: the recalls in force.
    """

    def __init__(self, settings: Settings, root: Path, now: float) -> None:
        self.recalls = read_recalls(root)
        self._settings = settings
        self._root = root
        self._files = TagHistoryFiles(root)
        self._now = now
        self._locks: dict[Path, LockReader] = {}

    def find(self, image: ImageName) -> TagUnderPolicy | None:
        """Return the tag with its policy, or None if no cool-down holds for it; by digest there is none."""
        found: TagUnderPolicy | None = None
        for key in history_keys(image, self._settings):
            if found is None or not found.record.sightings:
                found = self._under_policy(image.repository.first, Subject(*key)) or found
        return found

    def find_rules(self, image: ImageName) -> TagRules:
        """Return the rules that say which digest an image is."""
        locked = self._find_locked(image)
        is_locked = locked is not None and locked.policy.mode == "enforce"
        return TagRules(image, locked, None if is_locked else self.find(image))

    def iter_tags(self) -> Iterator[TagUnderPolicy]:
        """Iterate over the tags with a history for which a cool-down holds."""
        for name, upstream in self._settings.upstreams.items():
            for repository, tag in sorted(self._files.iter_tags(name)):
                found = self._under_policy(upstream.canonical, Subject(name, repository, tag))
                if found is not None:
                    yield found

    def decide(self, image: ImageName, digest: Digest) -> Verdict:
        """Return what clients would get in place of the digest that the cache has for a tag."""
        return self.find_rules(image).judge(digest)[0]

    def find_recall(self, repository: Repository, digest: Digest) -> Recall | None:
        """Return the recall of a digest, or of something to which its manifest refers, if that is held."""
        if not self.recalls:
            return None
        held = HeldImages(self._root)
        read = held.read_manifest(digest) if held.has_manifest(repository, digest) else None
        return self.recalls.find(digest, None if read is None else parse_references(read[0]))

    def iter_cooled(self) -> Iterator[tuple[_Key, TagUnderPolicy]]:
        """Yield the tags of which a cool-down, and no lock file, decides what they are served as."""
        for name, upstream in self._settings.upstreams.items():
            for rest, tag in self._files.iter_tags(name):
                image = ImageName(Repository(f"{upstream.canonical}/{rest}"), tag)
                try:
                    found = self.find_rules(image).cooled
                except OSError:  # then the mirror serves none either
                    continue
                if found is not None and found.policy.mode == "enforce":
                    yield (image.repository, tag), found

    def find_earlier(self, repository: Repository, tag: Tag, refused: Collection[Digest]) -> Digest | None:
        """Return the last digest that the tag was seen to name, of those that are not refused."""
        for name, upstream in self._settings.upstreams.items():
            if upstream.canonical != repository.first:
                continue
            try:
                sightings = self._files.read((name, Repository(repository.rest), tag)).sightings
            except OSError:  # then the mirror finds none either
                continue
            named = [each.digest for each in sightings if each.digest not in refused]
            if found := fallbacks(named, self.recalls.find):
                return found[0]
        return None

    def _find_locked(self, image: ImageName) -> LockedTag | None:
        if not isinstance(image.reference, Tag):
            return None
        subject = Subject("", Repository(image.repository.rest), image.reference)
        policy = Policies.of(image.repository.first, self._settings.policy).find(subject, "lock")
        if policy is None or policy.lock is None or policy.mode == "off":
            return None
        fact: Digest | Unlisted | MissingFact | None
        try:
            lock = self._locks.setdefault(policy.lock, LockReader(policy.lock)).current()
            fact = find_locked(lock, policy, image.repository, image.reference)
        except OSError as error:
            fact = None if policy.on_error == "serve" else MissingFact.of("lock", str(error))
        number = self._settings.policy.index(policy) + 1
        return None if fact is None else LockedTag(policy, number, fact)

    def _under_policy(self, registry: str, subject: Subject) -> TagUnderPolicy | None:
        assert isinstance(subject.reference, Tag)
        record = self._files.read((subject.upstream, subject.repository, subject.reference))
        record = evolve(record, sightings=tuple(record.known))
        policies = Policies.of(registry, self._settings.policy)
        policy = policies.find(subject, "min_age")
        if policy is None or policy.mode == "off":
            return None
        image = ImageName(Repository(f"{registry}/{subject.repository}"), subject.reference)
        current = evolve(subject, digest=record.sightings[-1].digest if record.sightings else None)
        number = self._settings.policy.index(policy) + 1
        found = TagUnderPolicy(image, current, record, policy, number, policies, self._now)
        admitted = set(admitted_digests(found.ages))
        withheld = frozenset(each for each in admitted if self.find_recall(image.repository, each))
        return evolve(found, withheld=withheld)


def check_not_recalled(recalls: Recalls, name: object, digests: Iterable[Digest]) -> None:
    """:raises Denied: when one of the contents was recalled."""
    for digest in digests:
        if recall := recalls.find(digest):
            raise Denied(f"{name}: {explain(recall, digest)}")


class ExportGates:
    """Makes the gates of the images of an export, by the policies and recalls as they are when it begins.

    :param note: is given a sentence when another digest is served in a tag's place.
    :ivar recalls: the recalls in force.
    """

    def __init__(
        self, settings: Settings, root: Path, now: float, note: Callable[[str], None] = lambda _: None
    ) -> None:
        self._admission = LocalAdmission(settings, root, now)
        self.recalls = self._admission.recalls
        self._verdicts = LocalVerdicts(settings, root, now)
        self._note = note

    def make(self, name: ImageName) -> ExportGate:
        """Return the gate of one image, whose parts raise ``Denied``."""

        def choose(digest: Digest) -> Digest:
            verdict = self._admission.decide(name, digest)
            if isinstance(verdict, Refuse):
                raise Denied(verdict.why)
            if isinstance(verdict, ServeInstead):
                self._note(f"{name}: {verdict.digest} in its place: {verdict.why}")
                return verdict.digest
            return digest

        def check(reference: Reference, image: StoredImage) -> None:
            self._verdicts.check(evolve(name, reference=reference), image)

        return ExportGate(partial(check_not_recalled, self.recalls, name), choose, check)


def find_replacements(
    settings: Settings, root: Path, named: Iterable[_Key], refused: Collection[Digest], now: float
) -> Mapping[_Key, Digest | None]:
    """Return the tags that were served as a refused digest, each with the digest that it falls back to.

    A cool-down serves a tag as an earlier digest than the one that the tag names.

    :param named: the tags that name a refused digest.
    :param refused: the digest of a recall in force, and the manifests that refer to it.
    :returns: None for each tag that is refused.
    """
    admission = LocalAdmission(settings, root, now)
    found = {key: admission.find_earlier(*key, refused) for key in named}
    for key, tag in admission.iter_cooled():
        if key in found or _was_served_as(tag, refused):
            found[key] = _choose(tag, found.get(key) or tag.subject.digest, refused)
    return found


def _was_served_as(tag: TagUnderPolicy, refused: Collection[Digest]) -> bool:
    """Return whether the cool-down would serve the tag as a refused digest if nothing refused that."""
    before = evolve(tag, withheld=tag.withheld - frozenset(refused)).decide(tag.subject.digest)
    return isinstance(before, ServeInstead) and before.digest in refused


def _choose(tag: TagUnderPolicy, digest: Digest | None, refused: Collection[Digest]) -> Digest | None:
    """Return the digest that the cool-down gives a tag that names this one; None if it gives none."""
    match tag.decide(digest):
        case ServeInstead() as instead:
            return instead.digest
        case Refuse():
            return None
    return None if digest in refused else digest
