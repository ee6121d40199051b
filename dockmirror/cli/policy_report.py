"""``dockmirror policy report``: what the last 30 days would have met under the policies."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import click

from ..admission.cool_down import TagSummary, summarize_ages
from ..app.local_admission import LocalAdmission, TagUnderPolicy
from ..app.pull_review import OUTCOMES, PullReport, PullReview, make_report, read_pulls
from ..history.pulls import HistoryError
from ..oci.errors import Denied
from ..system.timestamps import format_timestamp
from .arguments import json_option
from .command_context import Context, find_store
from .history_commands import open_reader
from .output import print_json, print_note, print_table

REPORTED_DAYS = 30.0
_DAY = 86_400.0


@click.command("report", short_help="Say which rules the pulls of the last 30 days met.")
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


def _review_pulls(context: Context, review: PullReview, since: float) -> PullReport | None:
    """Return the report on pulls; None if there is no history of them."""
    try:
        reader = open_reader(context.settings)
    except click.ClickException as error:
        print_note(f"pulls are not reported: {error.message}")
        return None
    try:
        return make_report(review, read_pulls(reader, since))
    except (Denied, HistoryError) as error:
        raise click.ClickException(str(error)) from None


def _print_rules(pulls: PullReport) -> None:
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
    pulls: PullReport | None, since: float, tags: Sequence[tuple[TagUnderPolicy, TagSummary]]
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
