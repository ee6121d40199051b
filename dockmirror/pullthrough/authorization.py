"""The authorizer: whether a client may be served from the cache.

Only the upstream decides who may pull.  ``authorize`` applies these rules in order; the first that matches
decides.

Before the upstream is asked:

1. ASK if the content is not held for the repository, or if a write through the mirror has deleted or changed
   it, or may have.
2. ALLOW content of a public repository that is named by a digest, or still fresh: a tag also while somebody
   asks the upstream about it again, if the settings allow that.
3. ALLOW content that is named by a digest to credentials with a grant.  A tag or a list may have changed, or
   differ between clients, so the upstream is asked.
4. ASK in all other cases.

With the upstream's outcome:

5. ALLOW after consent; ``oci/consent.py`` defines it.
6. DENY after a refusal, a 404, or an answer that proves nothing, whatever is remembered.  If deleted content
   is to be kept, a 404 counts as an outage in which content never expires.
7. DENY in an outage if the content is not held, or was confirmed too long ago.
8. STALE in an outage for credentials with a grant, and for public repositories.
9. STALE in an outage also if the repository was public in the last week, or if the operator has imported the
   content: for a client without credentials, and for one with credentials unless the upstream answers the
   mirror's own anonymous request without consenting.
10. DENY in all other cases.
"""

from __future__ import annotations

from enum import Enum

from attrs import evolve, frozen

from ..concurrency.backoff import is_outage
from ..oci.errors import RegistryError

MAX_STALE = 7 * 24 * 3600.0
"""Seconds since its confirmation after which content is not served stale any more."""


class Decision(Enum):
    """The answer of the authorizer."""

    ALLOW = "serve the held content"
    ASK = "ask the upstream"
    STALE = "serve the held content, as the upstream does not answer"
    DENY = "serve no held content"


class Outcome(Enum):
    """The kind of the upstream's answer."""

    CONSENT = "it gives the content"
    UNPROVEN = "it answered, and proved nothing"
    REFUSED = "it does not give the content"
    NOT_FOUND = "it does not have the content"
    OUTAGE = "it could not answer"

    @classmethod
    def of(cls, error: RegistryError) -> Outcome:
        """Return the outcome that an error means."""
        if is_outage(error):
            return cls.OUTAGE
        return cls.NOT_FOUND if error.status == 404 else cls.REFUSED


@frozen
class Facts:
    """The facts about a request for stored content.

    :ivar anonymous: True if the client has no credentials.
    :ivar granted: True if the upstream has consented to its credentials for the repository lately.
    :ivar public: True if the upstream has consented to anybody in the last day.
    :ivar was_public: the same for the last week.
    :ivar imported: True if the operator has imported the content into the repository.
    :ivar mutable: True if it is a list, or named by a tag.
    :ivar held: True if it is held for the repository, and acceptable to the client.
    :ivar in_doubt: True if a write through the mirror has deleted or changed it since, or may have.
    :ivar fresh: True if it needs no confirmation.
    :ivar expired: True if it was confirmed too long ago to be served in an outage.
    :ivar keep_deleted: True if content that the upstream has deleted is still served.
    :ivar outcome: the upstream's answer; None before it is asked.
    :ivar anonymous_outcome: its answer to the mirror's own anonymous request; None if it was not asked.
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
    """Decide by the rules above; never ``ASK`` if the upstream's outcome is among the facts."""
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
    return Decision.STALE if facts.is_authorized or _was_for_everybody(facts) else Decision.DENY


def _is_outage(facts: Facts, outcome: Outcome | None) -> bool:
    """Return whether stored content may be served in place of such an answer."""
    return outcome is Outcome.OUTAGE or (facts.keep_deleted and outcome is Outcome.NOT_FOUND)


def _was_for_everybody(facts: Facts) -> bool:
    """Return whether rule 9 applies."""
    if not (facts.was_public or facts.imported):
        return False
    anonymous = facts.anonymous_outcome
    return facts.anonymous or anonymous is Outcome.CONSENT or _is_outage(facts, anonymous)
