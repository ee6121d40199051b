"""The decision about a manifest: ``admit(subject, facts)``, without I/O.

1. A fact that is missing refuses.
2. A tag that the lock file lists is the locked digest.
3. Any other tag is its current digest if that was ever admitted by the cool-down, else the last admitted one.
4. What is served by then must pass the rules about digests: recalls, signatures, the hook, the image.  A
   replacement is a subject of its own, by digest.

A rule without a fact does not apply.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import evolve, field, fields_dict, frozen

from ..oci.digest import Digest
from .cool_down import TagAges, check_age
from .verdict import SERVE, MissingFact, Refuse, ServeInstead, Subject, Verdict


@frozen
class Facts:
    """The facts about a subject, one for each kind of rule; None where no rule applies.

    :ivar ages: what the tag has named over time; see ``cool_down.py``.
    :ivar recall: the reason for which the digest was recalled.
    :ivar locked: the digest that the lock file gives the tag.
    :ivar warn_only: the names of facts whose rule only warns.
    """

    ages: TagAges | MissingFact | None = None
    recall: str | MissingFact | None = None
    locked: Digest | MissingFact | None = None
    warn_only: frozenset[str] = field(default=frozenset())

    def enforced(self) -> Facts:
        """Return the facts without those whose rule only warns."""
        return evolve(self, **dict.fromkeys(self.warn_only), warn_only=frozenset())


FACT_NAMES = tuple(name for name in fields_dict(Facts) if name != "warn_only")


def admit(subject: Subject, facts: Facts) -> Verdict:
    """Return what is served to a client that requests the subject."""
    return next((verdict for verdict in _verdicts(subject, facts) if verdict != SERVE), SERVE)


def _verdicts(subject: Subject, facts: Facts) -> Iterator[Verdict]:
    """Yield the verdict of each rule that applies, in order; the first other than SERVE counts."""
    for name in FACT_NAMES:
        fact = getattr(facts, name)
        if isinstance(fact, MissingFact):
            yield Refuse(f"{subject} is not served: {fact.why}; try again later", name)
    if isinstance(facts.locked, Digest):
        if facts.locked != subject.digest:
            yield ServeInstead(facts.locked, "the lock file names this digest", "locked")
    elif isinstance(facts.ages, TagAges):
        yield check_age(subject, facts.ages)
    if isinstance(facts.recall, str):
        yield Refuse(f"{subject} was recalled: {facts.recall}; use another version", "recall")
