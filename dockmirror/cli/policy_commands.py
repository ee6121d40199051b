"""``dockmirror policy``: what the policies do to images, and what they would have done."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import click

from ..admission.admit import Refuse, ServeInstead, TagSummary, summarize_ages
from ..admission.admit import format_age as format_duration
from ..admission.recalls import explain
from ..app.local_admission import LocalAdmission, LockedTag, TagRules, TagUnderPolicy
from ..app.local_verdicts import ImageFinding, LocalVerdicts
from ..app.naming import ImageName
from ..app.pull_review import OUTCOMES, PolicyReport, PullReview, make_report, read_pulls
from ..history.pulls import HistoryError
from ..oci.digest import Digest
from ..oci.request import Tag
from ..store.held_images import HeldImages
from ..system.times import format_timestamp
from .arguments import complete_image, json_option
from .command_context import Context, find_store, parse_image, print_json, print_note, print_table
from .history_commands import open_reader
from .main import CommandGroup

REPORTED_DAYS = 30.0
_DAY = 86_400.0


@click.group("policy", cls=CommandGroup, short_help="Show what policies do to images.")
def policy() -> None:
    """Show what the [[policy]] tables of the settings do to images.

    The commands read the settings as they are now, so that a policy can be tried before the mirror reloads
    them.  They ask no registry and no policy server: they go by what the mirror has seen, holds and has
    checked.
    """


@policy.command("test", short_help="Say what would be served in place of an image, and why.")
@json_option
@click.argument("images", nargs=-1, required=True, shell_complete=complete_image)
@click.pass_obj
def test(context: Context, as_json: bool, images: tuple[str, ...]) -> None:
    """Say what the policies and recalls would do if IMAGES were pulled now, and why.

    It is unknown what a rule would do that needs an image, a signature or a verdict of the policy server
    which the mirror does not have.

    Exit status: 1 when one would be refused, else 0.
    """
    settings = context.settings
    root, now = find_store(settings), time.time()
    admission, verdicts = LocalAdmission(settings, root, now), LocalVerdicts(settings, root, now)
    held_images, results = HeldImages(root), []
    for name in (parse_image(image, settings) for image in images):
        described = _describe(admission.find_rules(name), held_images)
        digest = _find_digest(held_images, name, described)
        recall = None if digest is None else admission.find_recall(name.repository, digest)
        if recall is not None:
            described |= {"verdict": "refused", "digest": None, "why": explain(recall, digest)}
        elif described["verdict"] != "refused":
            described |= _judge(verdicts, name, digest)
        results.append(described)
    if as_json:
        print_json(results)
    else:
        for each in results:
            click.echo("\n  ".join(_lines(each)))
    raise SystemExit(1 if any(each["verdict"] == "refused" for each in results) else 0)


def _describe(rules: TagRules, held_images: HeldImages) -> dict[str, Any]:
    """Return the decision about a tag as JSON has it."""
    image, cooled = rules.image, rules.cooled
    if cooled is not None:
        current, fields = cooled.subject.digest, _describe_cooled(cooled)
    elif rules.locked is not None:
        current = held_images.find_digest(image.repository, image.reference)
        fields = _describe_locked(rules, rules.locked)
    else:
        is_tag = isinstance(image.reference, Tag)
        why = "no cool-down holds for it" if is_tag else "by digest nothing is cooled"
        return {"image": str(image), "verdict": "served", "digest": None, "why": why}
    if fields["mode"] == "warn" and fields["verdict"] != "served":
        served = {"verdict": "served", "digest": fields.get("current")}
        fields |= {**served, "warning": fields["why"], "why": 'mode = "warn" changes nothing'}
    _, warning = rules.judge(current)
    if warning is not None and warning.rule == "locked":
        fields["warning"] = warning.why
    return fields


def _judge(verdicts: LocalVerdicts, name: ImageName, digest: Digest | None) -> dict[str, Any]:
    """Return the fields that the rules about digests change."""
    judgement = verdicts.judge(name, digest)
    refusal, unknown = judgement.refusal, judgement.unknown
    if refusal is not None and refusal.is_enforced:
        return {"verdict": "refused", "digest": None, "why": refusal.why}
    fields: dict[str, Any] = {}
    if judgement.images:
        fields["platforms"] = [_image_fields(each) for each in judgement.images]
    if unknown is not None:
        return {**fields, "verdict": "unknown", "why": unknown.why}
    return fields if refusal is None else {**fields, "warning": refusal.why}


def _image_fields(image: ImageFinding) -> dict[str, str]:
    """Return an image of an index that the rules refuse, or that they cannot check."""
    verdict = "served" if image.is_served else image.outcome
    told = "warning" if image.is_served else "why"
    return {"platform": image.platform, "verdict": verdict, told: image.finding.why}


def _find_digest(held_images: HeldImages, name: ImageName, fields: dict[str, Any]) -> Digest | None:
    """Return the digest that an image leads to, as far as the mirror knows."""
    if fields["digest"] is not None:
        return Digest.parse(fields["digest"])
    return held_images.find_digest(name.repository, name.reference)


def _describe_locked(rules: TagRules, locked: LockedTag) -> dict[str, Any]:
    """Return what a lock file makes of a tag without a cool-down."""
    decision, _ = rules.judge(None)
    fields: dict[str, Any] = {
        "image": str(rules.image),
        "policy": locked.number,
        "images": locked.policy.images,
        "mode": locked.policy.mode,
        "lock": str(locked.policy.lock),
    }
    if isinstance(decision, ServeInstead):
        return {**fields, "verdict": "served", "digest": str(decision.digest), "why": decision.why}
    if isinstance(decision, Refuse):
        return {**fields, "verdict": "refused", "digest": None, "why": decision.why}
    return {**fields, "verdict": "served", "digest": None, "why": 'mode = "warn" changes nothing'}


def _describe_cooled(found: TagUnderPolicy) -> dict[str, Any]:
    """Return what a cool-down makes of a tag, whether it is enforced or not."""
    digest = found.subject.digest
    fields: dict[str, Any] = {
        "image": str(found.image),
        "policy": found.number,
        "images": found.policy.images,
        "mode": found.policy.mode,
        "min_age": found.ages.min_age,
        "current": None if digest is None else str(digest),
        "since": format_timestamp(found.record.sightings[-1].first) if digest else None,
    }
    if digest is None:
        first_pull = found.policy.first_pull
        verdict = "served" if first_pull == "serve" else "refused"
        why = f'the tag was never seen, and first_pull is "{first_pull}"'
        if first_pull == "registry":
            why += ": it is served if its registry says that it was pushed long enough ago"
        return {**fields, "verdict": verdict, "digest": None, "why": why}
    decision = found.decide(digest)
    if isinstance(decision, Refuse):
        return {**fields, "verdict": "refused", "digest": None, "why": decision.why}
    if isinstance(decision, ServeInstead):
        return {**fields, "verdict": "replaced", "digest": str(decision.digest), "why": decision.why}
    why = "an exception covers it" if found.is_excepted(digest, found.now) else "the digest was admitted"
    return {**fields, "verdict": "served", "digest": str(digest), "why": why}


def _lines(fields: dict[str, Any]) -> list[str]:
    lines = [f"{fields['image']}: {fields['verdict']}"]
    if "lock" in fields:
        lines.append(f"policy {fields['policy']}, {fields['images']}: {fields['lock']}, {fields['mode']}")
    elif "policy" in fields:
        age, mode = format_duration(fields["min_age"]), fields["mode"]
        lines.append(f"policy {fields['policy']}, {fields['images']}: cool-down of {age}, {mode}")
    if fields.get("current"):
        lines.append(f"its registry names {fields['current']}, since {fields['since']}")
    if fields["digest"] and fields["digest"] != fields.get("current"):
        lines.append(f"served is {fields['digest']}")
    if "warning" in fields:
        lines.append(f"warning: {fields['warning']}")
    for image in fields.get("platforms", ()):
        why = image.get("why") or f"warning: {image['warning']}"
        lines.append(f"{image['platform']}: {image['verdict']}: {why}")
    return [*lines, fields["why"]]


@policy.command("report", short_help="Say which rules the pulls of the last 30 days met.")
@json_option
@click.option("--all", "show_all", is_flag=True, help="List tags that no cool-down held back, too.")
@click.pass_obj
def report(context: Context, as_json: bool, show_all: bool) -> None:
    """Say which rules the pulls of the last 30 days met, or would have met, and which tags are frozen.

    The policies and recalls count as they are now, those in mode "warn" as well.  No registry and no policy
    server is asked: the outcome is unknown where the mirror has neither the image nor a kept verdict.

    A tag is frozen when it moves so often that nothing new becomes old enough.

    Exit status: 0, or 1 when there is no cache.
    """
    settings, now = context.settings, time.time()
    root, since = find_store(settings), now - REPORTED_DAYS * _DAY
    tags = [
        (each, summarize_ages(each.ages, since))
        for each in LocalAdmission(settings, root, now).iter_tags()
        if each.record.sightings and each.record.sightings[-1].last >= since
    ]
    shown = [(tag, summary) for tag, summary in tags if show_all or summary.withheld]
    pulls = _review_pulls(context, PullReview(settings, root, now), since)
    if as_json:
        print_json(_report_fields(pulls, since, shown))
        return
    if pulls is not None:
        _print_rules(pulls)
    if shown:
        columns = ("image", "mode", "moves", "withheld", "withdrawn", "days behind", "now")
        print_table(columns, (_tag_row(tag, summary) for tag, summary in shown), right=columns[2:6])
    frozen = sum(summary.state == "frozen" for _, summary in tags)
    print_note(f"tags under a cool-down that were seen in the last 30 days: {len(tags)}, {frozen} frozen")


def _review_pulls(context: Context, review: PullReview, since: float) -> PolicyReport | None:
    """Return the report on pulls; None if there is no history of them."""
    try:
        reader = open_reader(context.settings)
    except click.ClickException as error:
        print_note(f"pulls are not reported: {error.message}")
        return None
    try:
        return make_report(review, read_pulls(reader, since))
    except HistoryError as error:
        raise click.ClickException(str(error)) from None


def _print_rules(pulls: PolicyReport) -> None:
    rows = [
        (met.image, met.rule, met.mode, met.outcome, str(count.pulls), _format_day(count.last), count.why)
        for met, count in pulls.sorted_rules()
    ]
    if rows:
        columns = ("image", "rule", "mode", "outcome", "pulls", "last", "why")
        print_table(columns, rows, right=("pulls",))
        click.echo()
    counts = ", ".join(f"{pulls.outcomes[each]} {each}" for each in OUTCOMES)
    print_note(f"pulls in the last 30 days, under the policies as they are now: {pulls.pulls}, {counts}")


def _format_day(seconds: float) -> str:
    return format_timestamp(seconds).partition("T")[0]


def _report_fields(
    pulls: PolicyReport | None, since: float, tags: Sequence[tuple[TagUnderPolicy, TagSummary]]
) -> dict[str, Any]:
    counts, rules = None, []
    if pulls is not None:
        outcomes: dict[str, int] = {each: pulls.outcomes[each] for each in OUTCOMES}
        counts = {"total": pulls.pulls, **outcomes}
        rules = [
            {
                "image": met.image,
                "rule": met.rule,
                "mode": met.mode,
                "outcome": met.outcome,
                "pulls": count.pulls,
                "last": format_timestamp(count.last),
                "why": count.why,
            }
            for met, count in pulls.sorted_rules()
        ]
    listed = [_tag_fields(tag, summary) for tag, summary in tags]
    return {"since": format_timestamp(since), "pulls": counts, "rules": rules, "tags": listed}


def _tag_fields(tag: TagUnderPolicy, summary: TagSummary) -> dict[str, Any]:
    return {
        "image": str(tag.image),
        "policy": tag.number,
        "mode": tag.policy.mode,
        "moves": summary.moves,
        "withheld": summary.withheld,
        "withdrawn": summary.withdrawn,
        "seconds_behind": round(summary.seconds),
        "state": summary.state,
    }


def _tag_row(tag: TagUnderPolicy, summary: TagSummary) -> tuple[str, ...]:
    counts = (str(each) for each in (summary.moves, summary.withheld, summary.withdrawn))
    return str(tag.image), tag.policy.mode, *counts, f"{summary.seconds / _DAY:.1f}", summary.state
