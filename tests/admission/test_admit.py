"""The decision as a table and by properties, the policies, and how facts are gathered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from attrs import evolve, frozen
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from zope.interface import implementer

from dockmirror.admission.admit import (
    FACT_NAMES,
    SERVE,
    AdmissionFacts,
    HookVerdict,
    MissingFact,
    Refuse,
    Serve,
    ServeInstead,
    Subject,
    TagAges,
    admit,
    format_age,
    is_frozen,
)
from dockmirror.admission.policies import GATHER_TIMEOUT, FactContext, FactGatherer, IFactSource, Policies
from dockmirror.config.image_rules import PolicySettings
from dockmirror.interfaces import Sighting
from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import ErrorEntry, RegistryError, Unreachable
from dockmirror.oci.manifest import ManifestDocument
from dockmirror.oci.request import Reference, Repository, Tag, parse_reference

from ..archive.packing import manifest as pack
from ..pullthrough.mirrors import NAME, TTL
from .gated import LATEST, REPOSITORY, Gated

DAY = 86_400.0
OLD, NEW = Digest.of(b"old"), Digest.of(b"new")
SUBJECT = Subject("docker", REPOSITORY, LATEST, NEW)
MISSING = MissingFact.of("min_age", "the disk is broken")


def ages(*sightings: tuple[Digest, float, float], first_pull: Any = "serve", **more: Any) -> TagAges:
    """Return the ages of a tag under a cool-down of a week; the first sighting is the baseline."""
    spans = [
        Sighting(digest, first * DAY, last * DAY, is_baseline=not number)
        for number, (digest, first, last) in enumerate(sightings)
    ]
    return TagAges(spans, 7 * DAY, first_pull, **more)


YOUNG = ages((OLD, 0, 1), (NEW, 1, 3))


@pytest.mark.parametrize(
    ("facts", "expected", "rule"),
    [
        (AdmissionFacts(), Serve, ""),
        (AdmissionFacts(ages=YOUNG), OLD, "ages"),
        (AdmissionFacts(ages=ages((OLD, 0, 1), (NEW, 1, 8))), Serve, ""),
        (AdmissionFacts(ages=ages((OLD, 0, 1), (NEW, 1, 7.9))), OLD, "ages"),
        (AdmissionFacts(ages=ages((NEW, 0, 0), (OLD, 1, 2), (NEW, 3, 3))), Serve, ""),
        (AdmissionFacts(ages=ages((NEW, 0, 0), first_pull="refuse")), Refuse, "ages"),
        (AdmissionFacts(ages=ages((NEW, 0, 7), first_pull="registry")), Serve, ""),
        (AdmissionFacts(ages=ages(first_pull="registry")), Refuse, "ages"),
        (AdmissionFacts(ages=ages()), Serve, ""),
        (AdmissionFacts(ages=ages((OLD, 0, 1))), OLD, "ages"),
        (AdmissionFacts(ages=ages((OLD, 0, 1), (NEW, 1, 3), excepted=True)), Serve, ""),
        (AdmissionFacts(ages=ages((OLD, 0, 1), (NEW, 1, 3), withheld=frozenset({OLD}))), Refuse, "ages"),
        (AdmissionFacts(ages=MISSING), Refuse, "ages"),
        (AdmissionFacts(ages=MISSING, warn_only=frozenset({"ages"})).enforced(), Serve, ""),
        (AdmissionFacts(known=False), Refuse, "known"),
        (AdmissionFacts(known=True), Serve, ""),
        (AdmissionFacts(hook=HookVerdict(False, "CVE-1")), Refuse, "hook"),
        (AdmissionFacts(hook=HookVerdict(False, "CVE-1"), ages=YOUNG), OLD, "ages"),
        (AdmissionFacts(locked=OLD, ages=ages((NEW, 0, 9))), OLD, "locked"),
        (AdmissionFacts(locked=NEW, ages=YOUNG), Serve, ""),
    ],
)
def test_verdicts(facts: AdmissionFacts, expected: Any, rule: str) -> None:
    """Each fact alone, and which comes first."""
    verdict = admit(SUBJECT, facts)
    if isinstance(expected, Digest):
        assert isinstance(verdict, ServeInstead)
        assert verdict.digest == expected
    else:
        assert isinstance(verdict, expected)
    assert getattr(verdict, "rule", "") == rule
    assert "\n" not in getattr(verdict, "why", "")


SIGHTINGS = st.lists(st.tuples(st.sampled_from([OLD, NEW]), st.integers(0, 20)), max_size=8)


@given(SIGHTINGS, st.sampled_from(["serve", "refuse", "registry"]), st.sampled_from(FACT_NAMES))
def test_properties(runs: list[tuple[Digest, int]], first_pull: str, missing: str) -> None:
    """A missing fact refuses whatever the others say; a replacement is a digest that the tag has had."""
    spans, now = [], 0
    for digest, days in runs:
        spans.append((digest, now, now + days))
        now += days + 1
    facts = AdmissionFacts(ages=ages(*spans, first_pull=first_pull))
    changes: dict[str, Any] = {missing: MISSING}
    assert isinstance(admit(SUBJECT, evolve(facts, **changes)), Refuse)
    verdict = admit(SUBJECT, facts)
    if isinstance(verdict, ServeInstead):
        assert verdict.digest != SUBJECT.digest
        assert verdict.digest in {digest for digest, *_ in spans}
    if any(digest == NEW and days >= 7 for digest, days in runs):
        assert verdict == SERVE


@pytest.mark.parametrize(
    ("seconds", "text"), [(7 * DAY, "7 d"), (DAY + 1, "2 d"), (3600, "1 h"), (61, "2 min"), (-5, "1 min")]
)
def test_ages_are_rounded_up(seconds: float, text: str) -> None:
    assert format_age(seconds) == text


@pytest.mark.parametrize(
    ("runs", "frozen"),
    [
        ([(OLD, 0, 1)], False),
        ([(OLD, 0, 1), (NEW, 2, 4)], False),
        ([(OLD, 0, 1), *((Digest.of(bytes([n])), n, n + 1) for n in range(2, 12))], True),
        ([(OLD, 0, 1), *((Digest.of(bytes([n])), n, n + 1) for n in range(2, 6))], False),
    ],
)
def test_frozen_tags(runs: Any, frozen: bool) -> None:
    """They moved more than once, and for longer than an age takes."""
    assert is_frozen(ages(*runs)) is frozen


POLICIES = [
    {"images": "docker.io/library/nginx:1.*", "min_age": "1d"},
    {"images": "docker.io/library/*", "max_size": "1GB"},
    {"images": "docker.io/library/*@sha256:*", "min_age": "2d"},
    {"images": "docker.io/**", "min_age": "3d", "mode": "off"},
    {"images": "registry.lan:5000/team/*:v?", "min_age": "4d"},
    {"images": "**", "min_age": "5d"},
]


@pytest.mark.parametrize(
    ("registry", "repository", "reference", "days"),
    [
        ("docker.io", "library/nginx", "1.27", 1),
        ("docker.io", "library/nginx", "latest", 3),
        ("docker.io", "library/nginx", str(OLD), 2),
        ("docker.io", "team/app", "1.27", 3),
        ("registry.lan_5000", "team/app", "v1", 4),
        ("registry.lan_5000", "team/app", "v10", 5),
        ("ghcr.io", "a/b/c", "x", 5),
    ],
)
def test_the_first_policy_that_sets_a_rule_holds(
    registry: str, repository: str, reference: str, days: int
) -> None:
    policies = Policies.of(registry, [PolicySettings.model_validate(each) for each in POLICIES])
    parsed: Reference = parse_reference(reference)
    found = policies.find(Subject("x", Repository(repository), parsed), "min_age")
    assert found is not None
    assert found.min_age == days * DAY
    assert policies.find(Subject("x", Repository(repository), parsed), "lock") is None
    assert policies.find(Subject("x", Repository(repository), parsed), "digests") is found
    assert policies.sets("min_age")
    assert not policies.sets("lock")


@implementer(IFactSource)
class Source:
    """A source that answers when the test says so."""

    fact = "hook"
    setting = "min_age"
    is_about_tags = False

    def __init__(self) -> None:
        self.waiting: list[Deferred[HookVerdict | None]] = []
        self.manifests: list[Any] = []

    async def gather(self, context: FactContext) -> HookVerdict | None:
        self.manifests.append(await context.read_manifest())
        self.waiting.append(Deferred())
        return await self.waiting[-1]


MANIFEST = pack(b"config", b"layer")


def test_the_sources_share_the_manifest() -> None:
    """It is loaded once, although all of them ask for it before it is there."""
    loading: list[Deferred[ManifestDocument | None]] = []

    def load() -> Deferred[ManifestDocument | None]:
        loading.append(Deferred())
        return loading[-1]

    sources = Source(), Source()
    reader: Any = None
    policy = PolicySettings.model_validate({"images": "docker.io/**", "min_age": "7d"})
    subject = Subject("docker", Repository(NAME), Tag("latest"), Digest.of(MANIFEST))
    gatherer = FactGatherer(sources, Policies.of("docker.io", ()), Clock())
    gathering = gatherer.gather(subject, [(each, policy) for each in sources], load, reader)
    watched = Deferred.fromCoroutine(gathering)
    manifest = ManifestDocument.parse(MANIFEST)
    assert manifest is not None
    loading[0].callback(manifest)
    assert [each.manifests for each in sources] == [[manifest], [manifest]]
    assert len(loading) == 1
    watched.addErrback(lambda failure: failure.trap(CancelledError)).cancel()


def in_upstreams_words(error: RegistryError, words: str) -> RegistryError:
    """Return the error as it is for a client, which reads what the upstream has said."""
    error.entries = (ErrorEntry(error.code, words),)
    return error


@pytest.mark.parametrize(
    ("policy", "served"), [({}, False), ({"on_error": "serve"}, True), ({"mode": "warn"}, True)]
)
@pytest.mark.parametrize("fails", [True, False])
def test_a_fact_that_cannot_be_had_refuses(policy: dict[str, str], served: bool, fails: bool) -> None:
    """After three seconds, or at once if its source fails; unless the policy says otherwise."""
    source = Source()
    gated = Gated({"min_age": "7d", **policy}, sources=[source])
    manifest = gated.publish("1")
    outcome = gated.later(f"{NAME}/manifests/latest")
    assert outcome == []
    assert source.manifests[0].media_type in manifest.decode()
    if fails:
        source.waiting[0].errback(in_upstreams_words(Unreachable("it is down"), "Bearer secret"))
    else:
        gated.clock.advance(GATHER_TIMEOUT)
    (answer,) = outcome
    assert isinstance(answer, Exception) is not served
    if not served:
        assert "the rule min_age cannot be checked: " in str(answer)
        assert "secret" not in str(answer)


def test_decisions_are_kept_until_the_generation_changes() -> None:
    source = Source()
    gated = Gated({"min_age": "0s"}, sources=[source])
    gated.publish("1")
    first = gated.later(f"{NAME}/manifests/latest")
    source.waiting[0].callback(None)
    assert not isinstance(first[0], Exception)
    gated.get(f"{NAME}/manifests/latest")
    assert len(source.waiting) == 1
    gated.generation += 1
    second = gated.later(f"{NAME}/manifests/latest")
    source.waiting[1].callback(HookVerdict(False, "CVE-1"))
    assert "is refused by the policy server: CVE-1" in str(second[0])
    assert gated.counts == [("hook", "refused")]


@implementer(IFactSource)
@frozen
class Known:
    """A source that has its fact at once."""

    fact: str
    is_about_tags: bool
    find: Callable[[Digest | None], Any]
    setting = "min_age"

    async def gather(self, context: FactContext) -> Any:
        return self.find(context.subject.digest)


RULES = st.sampled_from(["move", "deny", "allow", "lock", "unlock"])


@given(st.lists(st.tuples(RULES, st.integers(0, 2), st.sampled_from([0.0, 0.5, 2.0, 11.0])), max_size=12))
def test_kept_decisions_are_those_of_the_rules_in_force(changes: list[tuple[str, int, float]]) -> None:
    """Each new rule begins a generation; tags move without one."""
    denied: set[Digest | None] = set()
    locked: list[Digest] = []
    sources = (
        Known("locked", True, lambda _: locked[-1] if locked else None),
        Known("hook", False, lambda digest: HookVerdict(digest not in denied)),
    )
    gated = Gated({"min_age": "0s"}, sources=sources)
    manifests = [gated.publish(str(number)) for number in range(3)]
    digests, tags = [Digest.of(each) for each in manifests], gated.registry_behind.shelf(NAME).tags
    for change, number, seconds in changes:
        match change:
            case "move":
                tags["latest"] = digests[number]
                gated.clock.advance(TTL)
            case "deny":
                denied.add(digests[number])
            case "allow":
                denied.discard(digests[number])
            case "lock":
                locked[:] = [digests[number]]
            case "unlock":
                locked.clear()
        gated.generation += change != "move"
        expected = locked[-1] if locked else tags["latest"]
        for _ in range(3):
            refused = (
                f"{NAME}:latest is refused by the policy server: it gives no reason; use another version"
            )
            assert gated.served() == (refused if expected in denied else manifests[digests.index(expected)])
            gated.clock.advance(seconds)
