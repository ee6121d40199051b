"""The decision about a manifest: ``admit(subject, facts)``, without I/O.

1. A fact that is missing refuses.
2. A tag that the lock file lists is the locked digest; one that it does not list may be refused.
3. Any other tag is its current digest if that was ever admitted by the cool-down, else the last admitted one.
4. What is served by then must pass the rules about digests: signatures, the hook, the image.  A
   replacement is a subject of its own, by digest.

A rule without a fact does not apply.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import evolve, field, fields_dict, frozen

from ..oci.digest import Digest
from .cool_down import TagAges, check_age
from .verdict import (
    SERVE,
    HookVerdict,
    ImageVerdict,
    MissingFact,
    Refuse,
    ServeInstead,
    SignatureVerdict,
    Subject,
    Unlisted,
    Verdict,
)


@frozen
class AdmissionFacts:
    """The facts about a subject, one for each kind of rule; None where no rule applies.

    :ivar ages: what the tag has named over time; see ``cool_down.py``.
    :ivar known: True if a tag was served as the digest; see ``known_digests.py``.
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
