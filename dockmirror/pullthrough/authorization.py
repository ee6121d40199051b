"""The authorizer: whether a client may be served from the cache.

Only the upstream is trusted.  ``authorize`` applies these rules in their order; the first that fits decides.

Before the upstream is asked:

1. What is not held for the repository is asked for, and so is what a write through the mirror has deleted
   or changed, or may have.
2. What is held is allowed where the repository is public, and named by a digest or still fresh.
3. What is named by a digest is also allowed to credentials that have a grant.  What a tag names, or a list
   contains, may have changed, or be another for each client: that is asked for.
4. Everything else is asked for.

When the upstream has been asked:

5. Consent allows it.  What consent is, ``oci/consent.py`` says.
6. A refusal denies it, whatever was remembered, and so does an answer that proves nothing, and a 404; but
   where deleted content is kept, a 404 is treated as an outage, without an end to its time.
7. In an outage, nothing is served that is not held, or that was confirmed too long ago.
8. In an outage, the held content is served stale to credentials that have a grant, and from a public
   repository.
9. In an outage, it is also served stale where the repository was public in the last week, or where the
   operator has imported that content: to a client without credentials, and to one with credentials unless
   the upstream answers the mirror's own anonymous request, and does not consent to it.
10. Everything else is denied.
"""

from __future__ import annotations

from enum import Enum

from attrs import evolve, frozen

from ..concurrency.circuit_breaker import is_outage
from ..oci.errors import RegistryError

MAX_STALE = 7 * 24 * 3600.0
"""Seconds since its confirmation after which content is not served stale any more."""


class Decision(Enum):
    """The answer of the authorizer."""

    ALLOW = "serve what is held"
    ASK = "ask the upstream"
    STALE = "serve what is held, for want of the upstream's answer"
    DENY = "serve nothing that is held"


class Outcome(Enum):
    """The upstream's answer, as far as it matters."""

    CONSENT = "it gives the content"
    UNPROVEN = "it answered, and proved nothing"
    REFUSED = "it does not give the content"
    NOT_FOUND = "it does not have the content"
    OUTAGE = "it could not answer"

    @classmethod
    def of(cls, error: RegistryError) -> Outcome:
        """The outcome that an error is."""
        if is_outage(error):
            return cls.OUTAGE
        return cls.NOT_FOUND if error.status == 404 else cls.REFUSED


@frozen
class Facts:
    """The facts about a request for stored content.

    :ivar anonymous: whether the client has no credentials.
    :ivar granted: whether the upstream has consented to its credentials for the repository lately.
    :ivar public: whether the upstream has consented to anybody in the last day.
    :ivar was_public: the same for the last week.
    :ivar imported: whether the operator has imported the content into the repository.
    :ivar mutable: whether it is a list, or named by a tag.
    :ivar held: whether it is held for the repository, and of use to the client.
    :ivar in_doubt: whether it was deleted or changed through the mirror since it was confirmed, or may be.
    :ivar fresh: whether it needs no confirmation yet.
    :ivar expired: whether it was confirmed too long ago to be served in an outage.
    :ivar keep_deleted: whether what the upstream has deleted is served on.
    :ivar outcome: of asking the upstream; None before.
    :ivar anonymous_outcome: of asking it without the client's credentials; None where that was not done.
    """

    anonymous: bool
    granted: bool = False
    public: bool = False
    was_public: bool = False
    imported: bool = False
    mutable: bool = False
    held: bool = True
    in_doubt: bool = False
    fresh: bool = True
    expired: bool = False
    keep_deleted: bool = False
    outcome: Outcome | None = None
    anonymous_outcome: Outcome | None = None

    @property
    def is_authorized(self) -> bool:
        """Return whether a grant, or a public repository, lets the client pull."""
        return self.granted or self.public

    @property
    def is_for_everybody(self) -> bool:
        """Return whether the answer may be given to every client."""
        return self.anonymous and self.public

    @property
    def have_stale(self) -> bool:
        """Return whether stored content could be served if the upstream did not answer."""
        down = evolve(self, outcome=Outcome.OUTAGE, anonymous_outcome=Outcome.OUTAGE)
        return authorize(down) is Decision.STALE


def authorize(facts: Facts) -> Decision:
    """Decide by the rules above; never ``ASK`` where the upstream's outcome is among the facts."""
    if facts.outcome is None:
        allowed = facts.public or (facts.granted and not facts.mutable)
        usable = facts.held and facts.fresh and not facts.in_doubt
        return Decision.ALLOW if usable and allowed else Decision.ASK
    if facts.outcome is Outcome.CONSENT:
        return Decision.ALLOW
    if not _is_outage(facts, facts.outcome) or not facts.held:
        return Decision.DENY
    if facts.expired and facts.outcome is Outcome.OUTAGE:
        return Decision.DENY
    return Decision.STALE if facts.is_authorized or _is_anybodys(facts) else Decision.DENY


def _is_outage(facts: Facts, outcome: Outcome | None) -> bool:
    """Return whether stored content may be served in place of such an answer."""
    return outcome is Outcome.OUTAGE or (facts.keep_deleted and outcome is Outcome.NOT_FOUND)


def _is_anybodys(facts: Facts) -> bool:
    """Return whether rule 9 applies."""
    if not (facts.was_public or facts.imported):
        return False
    anonymous = facts.anonymous_outcome
    return facts.anonymous or anonymous is Outcome.CONSENT or _is_outage(facts, anonymous)
