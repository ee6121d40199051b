"""The rules that the pulls in the history would have met, under the policies and recalls as they are now.

No registry and no policy server is asked: what neither the cache's directory nor a kept verdict tells is
unknown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, get_args

from attrs import define, evolve, field, frozen

from ..admission.admit import Refuse, ServeInstead
from ..admission.recalls import explain
from ..config.settings import Settings
from ..history.pulls import HistoryReader, Pull, PullFilter
from ..oci.digest import Digest
from ..oci.errors import RegistryError
from ..oci.request import Repository, parse_reference
from .local_admission import LocalAdmission, TagRules
from .local_verdicts import Judgement, LocalVerdicts, RuleFinding
from .naming import ImageName

SIGHTING_SECONDS = 60.0
"""Seconds in which a pull has recorded what its tag names."""
_PAGE = 10_000
_KEYS = {"locked": "lock", "ages": "min_age"}
"""The keys of the rules about tags, by the facts that they judge."""

Outcome = Literal["refused", "replaced", "unknown"]
OUTCOMES: Sequence[Outcome] = get_args(Outcome)


@frozen
class MetRule:
    """A rule that a pull would have met.

    :ivar rule: the key of the rule in a policy, or "recall".
    :ivar why: the sentence for the client, or the reason for which the outcome is unknown.
    """

    image: str
    rule: str
    outcome: Outcome
    mode: str
    why: str = field(eq=False)


@define
class RuleCount:
    """The pulls that have met a rule.

    :ivar last: when the last of them began.
    :ivar why: what that one was told.
    """

    pulls: int = 0
    last: float = 0.0
    why: str = ""


@frozen
class PolicyReport:
    """The sums over all pulls.

    :ivar outcomes: how many pulls have met a rule, by the first outcome of ``refused``, ``replaced`` and
        ``unknown``.
    """

    pulls: int
    outcomes: Counter[str]
    rules: dict[MetRule, RuleCount]

    def sorted_rules(self) -> list[tuple[MetRule, RuleCount]]:
        """Return the rules, those that most pulls have met first."""
        return sorted(self.rules.items(), key=lambda each: (-each[1].pulls, each[0].image, each[0].rule))


def read_pulls(reader: HistoryReader, since: float) -> Iterator[Pull]:
    """Yield all pulls since then, newest first.

    :raises HistoryError: when the history cannot be read.
    """
    after, condition = 0, PullFilter(since=since)
    while page := reader.pulls(condition, _PAGE, after):
        yield from page
        after = page[-1].number


def make_report(review: PullReview, pulls: Iterable[Pull]) -> PolicyReport:
    """Return the sums over pulls, of which the newest comes first."""
    count, outcomes, rules = 0, Counter[str](), dict[MetRule, RuleCount]()
    for pull in pulls:
        count += 1
        met = review.find_rules(pull)
        if met:
            outcomes[min((each.outcome for each in met), key=OUTCOMES.index)] += 1
        for each in met:
            counted = rules.setdefault(each, RuleCount(0, pull.began, each.why))
            counted.pulls += 1
    return PolicyReport(count, outcomes, rules)


class PullReview:
    """Applies policies and recalls to pulls of the past."""

    def __init__(self, settings: Settings, root: Path, now: float) -> None:
        self._admission = LocalAdmission(settings, root, now)
        self._verdicts = LocalVerdicts(settings, root, now)
        self._rules: dict[ImageName, TagRules] = {}
        self._judged: dict[tuple[ImageName, Digest | None, str], Sequence[MetRule]] = {}

    def find_rules(self, pull: Pull) -> list[MetRule]:
        """Return the rules that the pull would have met; after a refusal by its tag, none is looked for."""
        try:
            reference = parse_reference(pull.reference)
            name = ImageName(Repository.parse(f"{pull.registry}/{pull.repository}"), reference)
            digest = Digest.parse(pull.digest) if pull.digest else None
        except RegistryError:
            return []
        if isinstance(reference, Digest):
            return [*self._judge(name, reference, pull.platform)]
        met, digest = self._decide_tag(name, digest, pull.began + SIGHTING_SECONDS)
        if any((each.outcome, each.mode) == ("refused", "enforce") for each in met):
            return met
        return [*met, *self._judge(name, digest, pull.platform)]

    def _decide_tag(
        self, name: ImageName, digest: Digest | None, time: float
    ) -> tuple[list[MetRule], Digest | None]:
        """Return the rules about tags that the pull would have met, and the digest that would be served.

        :param digest: the one that was served; None if the history does not know it.
        """
        if name not in self._rules:
            self._rules[name] = self._admission.find_rules(name)
        cooled = self._rules[name].cooled
        digest, verdict, warning = self._rules[name].judge_at(time, digest)
        met: list[MetRule] = []
        for mode, each in (("enforce", verdict), ("warn", warning)):
            if isinstance(each, Refuse | ServeInstead):
                outcome: Outcome = "replaced" if isinstance(each, ServeInstead) else "refused"
                if each.rule == "ages" and outcome == "refused" and cooled and not cooled.was_seen(time):
                    outcome = "unknown"
                met.append(MetRule(str(name), _KEYS[each.rule], outcome, mode, each.why))
        return met, verdict.digest if isinstance(verdict, ServeInstead) else digest

    def _judge(self, name: ImageName, digest: Digest | None, platform: str) -> Sequence[MetRule]:
        """Return what the recalls and the rules about digests say.

        :param platform: that the client pulled; empty if the history does not know it.
        """
        key = name, digest, platform
        if key not in self._judged:
            self._judged[key] = list(self._iter_judged(*key))
        return self._judged[key]

    def _iter_judged(self, name: ImageName, digest: Digest | None, platform: str) -> Iterator[MetRule]:
        recall = None if digest is None else self._admission.find_recall(name.repository, digest)
        if recall is not None:
            yield MetRule(str(name), "recall", "refused", "enforce", explain(recall, digest))
            return
        judgement = self._verdicts.judge(name, digest, platform)
        unknown = judgement.unknown or (None if platform else _find_partial_refusal(judgement))
        found: Sequence[tuple[Outcome, RuleFinding | None]] = (
            ("refused", judgement.refusal), ("unknown", unknown),
        )  # fmt: skip
        for outcome, finding in found:
            if finding is not None:
                mode = "enforce" if finding.is_enforced else "warn"
                yield MetRule(str(name), finding.key, outcome, mode, finding.why)


def _find_partial_refusal(judgement: Judgement) -> RuleFinding | None:
    """Return a refusal of one of an index's images, which is unknown of a pull without a platform."""
    refused = next((each for each in judgement.images if each.outcome == "refused"), None)
    if refused is None:
        return None
    why = f"the history does not have the platform; {refused.platform}: {refused.finding.why}"
    return evolve(refused.finding, why=why)
