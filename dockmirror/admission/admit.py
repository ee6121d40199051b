"""The decision about a manifest: ``admit(subject, facts)``, its values and the cool-down, without I/O.

1. A fact that is missing refuses.
2. A tag that the lock file lists is the locked digest; one that it does not list may be refused.
3. Any other tag is its current digest if that was ever admitted by the cool-down, else the last admitted one.
4. What is served by then must pass the rules about digests: signatures, the hook, the image.  A
   replacement is a subject of its own, by digest.

A rule without a fact does not apply.

The cool-down admits a digest once the tag has named it for ``min_age``, unbroken by a sighting of another
one; if it left earlier, it starts anew.  An admitted digest stays admitted, so a rollback is immediate.  Ages
count from sighting to sighting: time in which nobody asked the upstream makes nothing older.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from attrs import evolve, field, fields_dict, frozen

from ..interfaces import Sighting
from ..oci.digest import Digest
from ..oci.request import Reference, Repository

FirstPull = Literal["serve", "refuse", "registry"]
_UNITS = ((86_400.0, "d"), (3600.0, "h"), (60.0, "min"))


@frozen
class Subject:
    """A manifest that a client requests.

    :ivar upstream: the upstream's name in the settings.
    :ivar digest: of the manifest that would be served; None if the upstream names none.
    """

    upstream: str
    repository: Repository
    reference: Reference
    digest: Digest | None = None

    def __str__(self) -> str:
        return f"{self.repository}{'@' if isinstance(self.reference, Digest) else ':'}{self.reference}"


@frozen
class Serve:
    """The manifest is served."""


@frozen
class ServeInstead:
    """Another manifest of the repository is served in its place, if that one is admitted itself.

    :ivar why: the reason, as one sentence.
    :ivar rule: the kind of rule, for metrics.
    """

    digest: Digest
    why: str
    rule: str = ""


@frozen
class Refuse:
    """Nothing is served.

    :ivar why: one sentence for the client: the rule, the reason, and what to do.
    :ivar rule: the kind of rule, for metrics.
    """

    why: str
    rule: str = ""


Verdict = Serve | ServeInstead | Refuse

SERVE = Serve()


@frozen
class MissingFact:
    """A fact that could not be gathered, so the rule cannot be checked.

    :ivar why: says so to the operator, with the reason, as part of a sentence.
    :ivar client_why: says so to clients, who are not told about the mirror's own machine.
    """

    why: str
    client_why: str

    @classmethod
    def of(cls, setting: str, reason: str, client_reason: str | None = None) -> MissingFact:
        """:param setting: the key of the rule in a policy."""
        problem = f"the rule {setting} cannot be checked: "
        return cls(problem + reason, problem + (reason if client_reason is None else client_reason))


@frozen
class HookVerdict:
    """The verdict of the operator's policy server.

    :ivar reason: its words for the client, in one line.
    """

    allow: bool
    reason: str = ""


@frozen
class SignatureVerdict:
    """The trusted signer of an image, or the reason for which there is none."""

    signer: str = ""
    problem: str = ""


@frozen
class ImageVerdict:
    """The outcome of the limits for one manifest: no problem, or the first one, as the end of a sentence."""

    problem: str = ""


@frozen
class Unlisted:
    """The fact that a lock file does not list a tag, and that the policy refuses such tags."""

    file: Path


@frozen
class TagAges:
    """The sightings of a tag, oldest first, and the rule that they are measured by.

    :ivar min_age: seconds for which a tag must have named a digest.
    :ivar first_pull: what becomes of a tag that has no admitted digest yet.
    :ivar excepted: True if an exception of the operator, or an admitted index, covers the current digest.
    :ivar withheld: digests that are no replacement, since they, or what they refer to, were recalled.
    """

    sightings: Sequence[Sighting]
    min_age: float
    first_pull: FirstPull = "serve"
    excepted: bool = False
    withheld: frozenset[Digest] = frozenset()


def check_age(subject: Subject, ages: TagAges) -> Verdict:
    """Return which digest a tag is served as."""
    if subject.digest is not None and ages.excepted:
        return SERVE
    served = admitted_digests(ages)
    if subject.digest is not None and subject.digest in served:
        return SERVE
    if not ages.sightings and ages.first_pull == "serve":
        return SERVE  # an imported image, of which the upstream has never told anything
    left = format_age(ages.min_age - current_age(ages, subject.digest))
    if last := next((each for each in reversed(served) if each not in ages.withheld), None):
        why = f"{subject.digest} is too new for the cool-down, and is served in {left} if the tag keeps it"
        return ServeInstead(last, why if subject.digest else "the registry does not answer", "ages")
    reason = "no version of it has been admitted yet"
    if served:
        reason = "every version of it that was admitted has been recalled"
    return Refuse(
        f"{subject} is too new for the cool-down of {format_age(ages.min_age)}: {reason};"
        f" try again in {left}, use an older version, or ask the operator for an exception",
        "ages",
    )


def admitted_digests(ages: TagAges) -> list[Digest]:
    """Return the digests that were admitted, each as often as it was served, the last one at the end."""
    admitted: set[Digest] = set()
    served: list[Digest] = []
    for sighting in ages.sightings:
        is_baseline = sighting.is_baseline and ages.first_pull == "serve"
        if is_baseline or sighting.last - sighting.first >= ages.min_age:
            admitted.add(sighting.digest)
        if sighting.digest in admitted:
            served.append(sighting.digest)
    return served


def is_frozen(ages: TagAges) -> bool:
    """Return whether the tag was moved so often that nothing new has been admitted for ``min_age``."""
    admitted, left = set(admitted_digests(ages)), None
    moves = 0
    for sighting in ages.sightings:
        if sighting.digest in admitted:
            left, moves = sighting.last, 0
        else:
            moves += 1
    return left is not None and moves > 1 and ages.sightings[-1].last - left >= ages.min_age


def ages_at(ages: TagAges, time: float) -> TagAges:
    """Return the ages as they were known at a time."""
    known = [evolve(each, last=min(each.last, time)) for each in ages.sightings if each.first <= time]
    return evolve(ages, sightings=known)


def current_age(ages: TagAges, digest: Digest | None) -> float:
    """Return the seconds for which the tag has named the digest; 0 if that is not its last sighting."""
    if not ages.sightings or ages.sightings[-1].digest != digest:
        return 0.0
    return ages.sightings[-1].last - ages.sightings[-1].first


def format_age(seconds: float) -> str:
    """Format a duration in its largest unit, rounded up."""
    for unit, name in _UNITS:
        if seconds >= unit or unit == 60.0:
            return f"{int(-(-max(seconds, 1.0) // unit))} {name}"
    raise AssertionError("unreachable")


@frozen
class TagSummary:
    """The effect of a cool-down on one tag since some time.

    :ivar moves: how often the tag was moved.
    :ivar withheld: how many of its digests were not served at first.
    :ivar withdrawn: how many of those left again before they were old enough.
    :ivar seconds: for how long another digest was served than the tag named, or none.
    :ivar state: "current", "behind", "frozen" or "refused".
    """

    moves: int
    withheld: int
    withdrawn: int
    seconds: float
    state: str


def summarize_ages(ages: TagAges, since: float) -> TagSummary:
    """Return what the cool-down has done, or would have done, to a tag since then."""
    sightings = ages.sightings
    recent = [index for index, each in enumerate(sightings) if each.last >= since]
    withheld = [index for index in recent if not _was_admitted(ages, index)]
    moves = [index for index in recent if index and sightings[index].first >= since]
    seconds = [_withheld_seconds(ages, index, since) for index in withheld]
    left = [index for index in withheld if index + 1 < len(sightings)]
    withdrawn = [index for index in left if sightings[index].last - sightings[index].first < ages.min_age]
    return TagSummary(len(moves), len(withheld), len(withdrawn), sum(seconds), _find_state(ages))


def _was_admitted(ages: TagAges, index: int) -> bool:
    """Return whether the digest of a sighting was served as soon as the tag named it."""
    before = evolve(ages, sightings=ages.sightings[:index])
    is_baseline = ages.sightings[index].is_baseline and ages.first_pull == "serve"
    return is_baseline or ages.sightings[index].digest in admitted_digests(before)


def _withheld_seconds(ages: TagAges, index: int, since: float) -> float:
    sighting = ages.sightings[index]
    end = min(_end(ages.sightings, index), sighting.first + ages.min_age)
    return max(0.0, end - max(sighting.first, since))


def _end(sightings: Sequence[Sighting], index: int) -> float:
    """Return when the next digest was seen; of the last sighting, when it was seen last."""
    return sightings[index + 1].first if index + 1 < len(sightings) else sightings[index].last


def _find_state(ages: TagAges) -> str:
    admitted = admitted_digests(ages)
    if ages.sightings and ages.sightings[-1].digest in admitted:
        return "current"
    if not admitted:
        return "refused"
    return "frozen" if is_frozen(ages) else "behind"


@frozen
class AdmissionFacts:
    """The facts about a subject, one for each kind of rule; None where no rule applies.

    :ivar ages: what the tag has named over time.
    :ivar known: True if a tag was served as the digest; see ``KnownDigestSource``.
    :ivar locked: the digest that the lock file gives the tag; ``Unlisted`` if it lists only others.
    :ivar signature: who has signed the digest, or the reason for which nobody counts.
    :ivar platforms: True if the image is within this limit, and so for the next three.
    :ivar hook: the verdict of the operator's policy server.
    :ivar warn_only: the names of facts whose rule only warns.
    """

    ages: TagAges | MissingFact | None = None
    known: bool | MissingFact | None = None
    locked: Digest | Unlisted | MissingFact | None = None
    signature: SignatureVerdict | MissingFact | None = None
    platforms: ImageVerdict | MissingFact | None = None
    max_size: ImageVerdict | MissingFact | None = None
    media_types: ImageVerdict | MissingFact | None = None
    foreign_layers: ImageVerdict | MissingFact | None = None
    hook: HookVerdict | MissingFact | None = None
    warn_only: frozenset[str] = field(default=frozenset())

    def enforced(self) -> AdmissionFacts:
        """Return the facts without those whose rule only warns."""
        return evolve(self, **dict.fromkeys(self.warn_only), warn_only=frozenset())


FACT_NAMES = tuple(name for name in fields_dict(AdmissionFacts) if name != "warn_only")


def admit(subject: Subject, facts: AdmissionFacts) -> Verdict:
    """Return what is served to a client that requests the subject."""
    return next((verdict for verdict in _verdicts(subject, facts) if verdict != SERVE), SERVE)


def judge(subject: Subject, facts: AdmissionFacts) -> tuple[Verdict, Refuse | ServeInstead | None]:
    """Return the verdict, and that of the rules that only warn if it is another one."""
    verdict, everything = admit(subject, facts.enforced()), admit(subject, facts)
    return verdict, None if everything == verdict or isinstance(everything, Serve) else everything


def _verdicts(subject: Subject, facts: AdmissionFacts) -> Iterator[Verdict]:
    """Yield the verdict of each rule that applies, in order; the first other than SERVE counts."""
    for name in FACT_NAMES:
        fact = getattr(facts, name)
        if isinstance(fact, MissingFact):
            yield Refuse(f"{subject} is not served: {fact.client_why}; try again later", name)
    if isinstance(facts.locked, Digest):
        if facts.locked != subject.digest:
            yield ServeInstead(facts.locked, "the lock file names this digest", "locked")
    elif isinstance(facts.locked, Unlisted):
        yield Refuse(
            f"{subject} is not in the lock file {facts.locked.file.name} of this mirror; use a tag that is,"
            " pull by digest, or ask the operator to add it with 'dockmirror lock'",
            "locked",
        )
    elif isinstance(facts.ages, TagAges):
        yield check_age(subject, facts.ages)
    if facts.known is False:
        yield Refuse(
            f"{subject} is not known: no tag of the repository was served as this digest; pull a tag, or ask"
            " the operator to allow it",
            "known",
        )
    yield from _image_verdicts(subject, facts)


def _image_verdicts(subject: Subject, facts: AdmissionFacts) -> Iterator[Verdict]:
    """Yield the verdicts of the rules about the image itself."""
    if isinstance(facts.signature, SignatureVerdict) and not facts.signature.signer:
        yield Refuse(
            f"{subject} is not signed by a trusted signer: {facts.signature.problem}; use a signed version,"
            " or ask the operator to trust its signer",
            "signature",
        )
    for name in ("platforms", "max_size", "media_types", "foreign_layers"):
        fact = getattr(facts, name)
        if isinstance(fact, ImageVerdict) and fact.problem:
            yield Refuse(
                f"{subject} is not allowed by the rule {name}: {fact.problem}; use another image", name
            )
    if isinstance(facts.hook, HookVerdict) and not facts.hook.allow:
        reason = facts.hook.reason or "it gives no reason"
        yield Refuse(f"{subject} is refused by the policy server: {reason}; use another version", "hook")
