"""``dockmirror policy``: what the policies do to images, and what they would have done."""

from __future__ import annotations

import time
from typing import Any

import click

from ..admission.cool_down import format_age as format_duration
from ..admission.policies import TagSummary, summarize
from ..admission.recalls import Recalls, explain
from ..admission.verdict import Refuse, ServeInstead
from ..app.local_admission import LocalAdmission, LocalVerdicts, LockedTag, TagUnderPolicy
from ..app.naming import ImageName
from ..oci.digest import Digest
from ..oci.errors import Denied
from ..oci.reference import Tag
from ..store.held_images import HeldImages
from ..system.timestamps import format_timestamp
from .arguments import complete_image, json_option
from .command_context import Context, find_store, parse_image
from .output import print_json, print_note, print_table

REPORTED_DAYS = 30.0
_DAY = 86_400.0


@click.group("policy", short_help="Show what policies do to images.")
def policy() -> None:
    """Show what the [[policy]] tables of the settings do to images.

    The commands read the settings as they are now, so that a policy can be tried before the mirror reloads
    them.  They know of tags what the mirror has seen.
    """


@policy.command("test", short_help="Say what would be served in place of an image, and why.")
@json_option
@click.argument("images", nargs=-1, required=True, shell_complete=complete_image)
@click.pass_obj
def test(context: Context, as_json: bool, images: tuple[str, ...]) -> None:
    """Say what the policies and recalls would do if IMAGES were pulled now, and why.

    Signatures, the policy server's verdicts and the limits on images are known of images in the cache.

    Exit status: 0 when all of them would be served, 1 when one would be refused.
    """
    settings = context.settings
    root, now = find_store(settings), time.time()
    admission, verdicts = LocalAdmission(settings, root, now), LocalVerdicts(settings, root, now)
    held_images, results = HeldImages(root), []
    for name in (parse_image(image, settings) for image in images):
        try:
            locked, found = admission.find_locked(name), admission.find(name)
        except Denied as error:
            raise click.ClickException(str(error)) from None
        if locked is not None:
            described = _describe_locked(locked)
        elif found is not None:
            described = _describe(found)
        else:
            is_tag = isinstance(name.reference, Tag)
            why = "no cool-down holds for it" if is_tag else "by digest nothing is cooled"
            described = {"image": str(name), "verdict": "served", "digest": None, "why": why}
        described = _apply_verdicts(verdicts, held_images, name, described)
        results.append(_apply_recall(admission.recalls, name, described))
    if as_json:
        print_json(results)
    else:
        for each in results:
            click.echo("\n  ".join(_lines(each)))
    raise SystemExit(1 if any(each["verdict"] == "refused" for each in results) else 0)


def _apply_verdicts(
    verdicts: LocalVerdicts, held_images: HeldImages, name: ImageName, fields: dict[str, Any]
) -> dict[str, Any]:
    """Return the decision about an image, which is a refusal if a rule refuses what it leads to."""
    digest = Digest.parse(fields["digest"]) if fields["digest"] is not None else None
    if digest is None and isinstance(name.reference, Digest):
        digest = name.reference
    elif digest is None and isinstance(name.reference, Tag) and fields["verdict"] == "served":
        tagged = held_images.list_tags(name.repository).get(name.reference)
        digest = None if tagged is None else tagged.digest
    image = None if digest is None else held_images.read_image(name.repository, digest)
    refusal = None if image is None or image.data is None else verdicts.find_refusal(name, image)
    if refusal is None:
        return fields
    return {**fields, "verdict": "refused", "digest": None, "why": refusal.why}


def _apply_recall(recalls: Recalls, name: ImageName, fields: dict[str, Any]) -> dict[str, Any]:
    """Return the decision about an image, which is a refusal if the digest that it leads to is recalled."""
    served = name.reference if isinstance(name.reference, Digest) else None
    if fields["digest"] is not None:
        served = Digest.parse(fields["digest"])
    recall = recalls.find(served) if served is not None else None
    if recall is None:
        return fields
    return {**fields, "verdict": "refused", "digest": None, "why": explain(recall, served)}


def _describe_locked(locked: LockedTag) -> dict[str, Any]:
    """Return what a lock file makes of a tag, as JSON has it."""
    decision = locked.decide(None)
    fields: dict[str, Any] = {
        "image": str(locked.image),
        "policy": locked.number,
        "images": locked.policy.images,
        "mode": locked.policy.mode,
        "lock": str(locked.policy.lock),
    }
    if isinstance(decision, ServeInstead):
        return {**fields, "verdict": "served", "digest": str(decision.digest), "why": decision.why}
    assert isinstance(decision, Refuse)
    return {**fields, "verdict": "refused", "digest": None, "why": decision.why}


def _describe(found: TagUnderPolicy) -> dict[str, Any]:
    """Return the decision about a tag as JSON has it."""
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
    why = "an exception covers it" if found.is_excepted else "the digest was admitted"
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
    return [*lines, fields["why"]]


@policy.command("report", short_help="Say what policies would have done in the last 30 days.")
@json_option
@click.option("--all", "show_all", is_flag=True, help="List tags that no policy held back, too.")
@click.pass_obj
def report(context: Context, as_json: bool, show_all: bool) -> None:
    """Say which tags a cool-down has held back in the last 30 days, or would have, and which are frozen.

    A tag is frozen when it moves so often that nothing new becomes old enough.

    Exit status: 0, or 1 when there is no cache.
    """
    settings = context.settings
    now = time.time()
    since = now - REPORTED_DAYS * _DAY
    tags = LocalAdmission(settings, find_store(settings), now).iter_tags()
    rows = [
        (each, summarize(each.ages, since))
        for each in tags
        if each.record.sightings and each.record.sightings[-1].last >= since
    ]
    shown = [(tag, summary) for tag, summary in rows if show_all or summary.withheld]
    if as_json:
        print_json([_report_fields(tag, summary) for tag, summary in shown])
        return
    if shown:
        columns = ("image", "mode", "moves", "withheld", "withdrawn", "days behind", "now")
        print_table(columns, (_report_row(tag, summary) for tag, summary in shown), right=columns[2:6])
    frozen = sum(summary.state == "frozen" for _, summary in rows)
    print_note(
        f"{len(rows)} tags under a cool-down were seen in the last 30 days; {frozen} of them are frozen"
    )


def _report_fields(tag: TagUnderPolicy, summary: TagSummary) -> dict[str, Any]:
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


def _report_row(tag: TagUnderPolicy, summary: TagSummary) -> tuple[str, ...]:
    counts = (str(each) for each in (summary.moves, summary.withheld, summary.withdrawn))
    return str(tag.image), tag.policy.mode, *counts, f"{summary.seconds / _DAY:.1f}", summary.state
