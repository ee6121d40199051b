"""The authorizer: its rules as a table, and what holds for all facts."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.body.bodies import CorruptContent
from dockmirror.oci.errors import (
    BlobUnknown,
    Denied,
    RangeInvalid,
    RegistryError,
    TimedOut,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    Unreachable,
    Unsupported,
)
from dockmirror.pullthrough.authorization import Decision, Facts, Outcome, authorize

ALLOW, ASK, STALE, DENY = Decision
CONSENT, UNPROVEN, REFUSED, NOT_FOUND, OUTAGE = Outcome
PUBLIC: dict[str, Any] = {"public": True, "was_public": True}
DOWN: dict[str, Any] = {"outcome": OUTAGE}

BEFORE: list[tuple[dict[str, Any], Decision]] = [
    # nothing is known
    ({}, ASK),
    ({"was_public": True}, ASK),
    ({"imported": True}, ASK),
    # public
    (PUBLIC, ALLOW),
    ({**PUBLIC, "mutable": True}, ALLOW),
    ({**PUBLIC, "mutable": True, "fresh": False}, ASK),
    ({**PUBLIC, "held": False}, ASK),
    ({**PUBLIC, "in_doubt": True}, ASK),
    # granted
    ({"granted": True}, ALLOW),
    ({"granted": True, "in_doubt": True}, ASK),
    ({"granted": True, "mutable": True}, ASK),
    ({"granted": True, "held": False}, ASK),
]
AFTER: list[tuple[dict[str, Any], Decision]] = [
    # an answer counts, whatever is remembered
    ({"outcome": CONSENT}, ALLOW),
    ({"outcome": CONSENT, "held": False}, ALLOW),
    ({**PUBLIC, "granted": True, "outcome": REFUSED}, DENY),
    ({**PUBLIC, "granted": True, "outcome": UNPROVEN}, DENY),
    ({**PUBLIC, "granted": True, "outcome": NOT_FOUND}, DENY),
    # an outage
    (DOWN, DENY),
    ({**DOWN, "granted": True}, STALE),
    ({**DOWN, **PUBLIC}, STALE),
    ({**DOWN, **PUBLIC, "mutable": True, "fresh": False}, STALE),
    ({**DOWN, **PUBLIC, "in_doubt": True}, STALE),
    ({**DOWN, **PUBLIC, "held": False}, DENY),
    ({**DOWN, **PUBLIC, "expired": True}, DENY),
    # public in the last week, or imported
    ({**DOWN, "was_public": True, "anonymous": True}, STALE),
    ({**DOWN, "imported": True, "anonymous": True}, STALE),
    ({**DOWN, "was_public": True}, DENY),
    ({**DOWN, "was_public": True, "anonymous_outcome": CONSENT}, STALE),
    ({**DOWN, "was_public": True, "anonymous_outcome": OUTAGE}, STALE),
    ({**DOWN, "was_public": True, "anonymous_outcome": REFUSED}, DENY),
    ({**DOWN, "was_public": True, "anonymous_outcome": NOT_FOUND}, DENY),
    ({**DOWN, "was_public": True, "anonymous_outcome": UNPROVEN}, DENY),
    ({**DOWN, "imported": True, "anonymous_outcome": OUTAGE}, STALE),
    ({**DOWN, "anonymous_outcome": CONSENT}, DENY),
    # what was deleted is kept
    ({**PUBLIC, "keep_deleted": True, "outcome": NOT_FOUND}, STALE),
    ({**PUBLIC, "keep_deleted": True, "outcome": NOT_FOUND, "expired": True}, STALE),
    ({"granted": True, "keep_deleted": True, "outcome": NOT_FOUND}, STALE),
    ({"keep_deleted": True, "outcome": NOT_FOUND}, DENY),
    ({**PUBLIC, "keep_deleted": True, "outcome": REFUSED}, DENY),
]

booleans = st.booleans()
facts = st.builds(
    Facts,
    anonymous=booleans,
    granted=booleans,
    public=booleans,
    was_public=booleans,
    imported=booleans,
    mutable=booleans,
    held=booleans,
    in_doubt=booleans,
    fresh=booleans,
    expired=booleans,
    keep_deleted=booleans,
    outcome=st.none() | st.sampled_from(Outcome),
    anonymous_outcome=st.none() | st.sampled_from(Outcome),
)
outcomes = st.sampled_from(Outcome)


@pytest.mark.parametrize(("known", "decision"), BEFORE + AFTER, ids=str)
def test_the_table(known: dict[str, Any], decision: Decision) -> None:
    """By default a client has credentials, and nothing is known about it."""
    assert authorize(Facts(**{"anonymous": False, **known})) is decision


@given(facts, outcomes)
def test_after_an_outcome_nothing_is_asked(known: Facts, outcome: Outcome) -> None:
    """The upstream is asked once; before it was asked, nothing is denied or stale."""
    assert authorize(evolve(known, outcome=outcome)) is not ASK
    assert authorize(evolve(known, outcome=None)) in (ALLOW, ASK)


@given(facts)
def test_only_consent_allows(known: Facts) -> None:
    """Held content is served because the upstream consents now, or has done so to that client or to all."""
    if authorize(known) is ALLOW:
        assert known.outcome is CONSENT or (known.outcome is None and (known.granted or known.public))


@given(facts)
def test_a_refusal_overrides_all_memory(known: Facts) -> None:
    assert authorize(evolve(known, outcome=REFUSED)) is DENY
    assert authorize(evolve(known, outcome=UNPROVEN)) is DENY


@given(facts)
def test_stale_needs_an_outage_and_earlier_consent_or_an_import(known: Facts) -> None:
    if authorize(known) is STALE:
        assert known.outcome is OUTAGE or (known.outcome is NOT_FOUND and known.keep_deleted)
        assert known.granted or known.public or known.was_public or known.imported
        assert known.held


@given(facts)
def test_less_knowledge_never_allows_more(known: Facts) -> None:
    """Without a grant, a public repository or an import, the decision is the same or a stricter one."""
    strictness = [ALLOW, STALE, ASK, DENY]
    for name in ("granted", "public", "was_public", "imported", "held", "fresh", "keep_deleted"):
        lacking: dict[str, Any] = {name: False}
        less = authorize(evolve(known, **lacking))
        assert strictness.index(less) >= strictness.index(authorize(known)), name
    assert strictness.index(authorize(evolve(known, in_doubt=True))) >= strictness.index(authorize(known))


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Unauthorized(), REFUSED),
        (Denied(), REFUSED),
        (RangeInvalid(), REFUSED),
        (Unsupported(), REFUSED),
        (CorruptContent("x"), REFUSED),
        (BlobUnknown(), NOT_FOUND),
        (Denied(status=404), NOT_FOUND),
        (Unavailable(), OUTAGE),
        (Unreachable(), OUTAGE),
        (TimedOut(), OUTAGE),
        (TooManyRequests(), OUTAGE),
        (RegistryError(status=500), OUTAGE),
    ],
)
def test_the_outcome_of_each_error(error: RegistryError, outcome: Outcome) -> None:
    assert Outcome.of(error) is outcome
