"""``dockmirror sync``: the rules that keep images in sync, and what they would do."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import click
from attrs import asdict, evolve, frozen
from zope.interface import implementer

from ..app.sync_rules import SyncRule, find_images, list_states, make_sync_rules, state_of
from ..config.notation import format_size
from ..interfaces import Answer, IRegistry
from ..oci.errors import RegistryError
from ..oci.request import RegistryRequest
from ..store import sync_states
from ..store.pins import Pin
from ..store.sync_states import SyncState
from .arguments import MirrorOptions, json_option, mirror_options
from .command_context import (
    Context,
    format_age,
    format_time,
    open_for_change,
    open_store,
    print_json,
    print_note,
    print_table,
    run_with_reactor,
)

_NO_RULES = "the settings have no [[sync]] rules"


@click.command("sync", short_help="List the rules that keep images in sync, or run them.")
@json_option
@click.option("--dry-run", is_flag=True, help="Say what would be pulled and unpinned now.")
@click.option("--now", is_flag=True, help="Have the running mirror run all rules at once.")
@mirror_options
@click.pass_obj
def sync(context: Context, as_json: bool, dry_run: bool, now: bool, mirror: MirrorOptions) -> None:
    """List the rules of [[sync]], and what each did last.

    --dry-run asks the running mirror for the tags of each rule, and pulls nothing.  --now returns at once:
    the mirror begins within ten seconds.

    Exit status: 0; 1 when there is no cache, or with --dry-run when a list cannot be read.
    """
    if dry_run and now:
        raise click.UsageError("--dry-run and --now exclude each other")
    mirror.check_goes_with("--dry-run", dry_run)
    settings = context.settings
    rules = make_sync_rules(settings)
    if now:
        _, root = open_for_change(context)
        sync_states.request_sync(root, time.time())
        print_note(
            f"a running mirror begins with {len(rules)} rules within ten seconds; see 'dockmirror sync'"
        )
        return
    connect = mirror.make_connect(settings) if dry_run else None
    root = open_store(settings)
    if connect is not None:
        states = sync_states.read_states(root)
        plan = run_with_reactor(lambda reactor: plan_rules(NamespaceQuery(connect(reactor)), rules, states))
        if not rules and not as_json:
            print_note(_NO_RULES)
        _print_plans(plan, as_json)
    elif rules or as_json:
        _print_states(rules, list_states(rules, root), as_json)
    else:
        print_note(_NO_RULES)


def _print_states(rules: Sequence[SyncRule], states: Sequence[SyncState], as_json: bool) -> None:
    if as_json:
        print_json([each.fields() for each in states])
        return
    columns = ("rule", "outcome", "images", "failed", "pinned", "fetched", "last", "next", "message")
    rows = [_row(rule, state, time.time()) for rule, state in zip(rules, states, strict=True)]
    print_table(columns, rows, right=columns[2:8])


def _row(rule: SyncRule, state: SyncState, now: float) -> Sequence[str]:
    """Return the cells of a rule's row in the table."""
    return (
        state.name,
        state.outcome,
        f"{state.synced} of {state.matched}",
        str(state.failed),
        str(len(state.pins)),
        format_size(state.bytes),
        format_age(now - state.started) if state.started else "not yet",
        _describe_next_run(rule, state, now),
        state.message,
    )


def _describe_next_run(rule: SyncRule, state: SyncState, now: float) -> str:
    if rule.is_offline:
        return "offline"
    if state.outcome == "running":
        return "running"
    return f"in {format_time(state.next_run - now)}" if state.next_run > now else "due"


@frozen
class SyncPlan:
    """The outcome of a dry run of one rule.

    :ivar pull: the images that match and that the rule has not pinned yet; ``keep``, those that it has.
    :ivar unpin: the images that no rule wants any longer.
    :ivar error: says why the tags cannot be listed; then the pins stay.
    """

    rule: str
    pull: Sequence[str] = ()
    keep: Sequence[str] = ()
    unpin: Sequence[str] = ()
    error: str | None = None


async def plan_rules(
    registry: IRegistry, rules: Sequence[SyncRule], states: Mapping[str, SyncState]
) -> list[SyncPlan]:
    """Return the plans of all rules, and of removed rules whose pins no other rule wants.

    :param registry: the registry of a mirror's own host.
    """
    wanted: dict[str, list[Pin]] = {}
    errors: dict[str, str] = {}
    problems: dict[str, str] = {}
    for rule in rules:
        if rule.is_offline:
            errors[rule.key] = f"the upstream {rule.upstream} is offline"
            wanted[rule.key] = list(state_of(rule, states).pins)
            continue
        try:
            found = await find_images(registry, rule)
            wanted[rule.key] = found.complete(state_of(rule, states).pins)
            problems[rule.key] = found.problem
        except RegistryError as error:
            errors[rule.key] = error.summary
            wanted[rule.key] = list(state_of(rule, states).pins)
    after = [SyncState(key, "", pins=tuple(images)) for key, images in wanted.items()]
    plans = []
    removed = [state for key, state in states.items() if key not in wanted]
    for state in [*(state_of(rule, states) for rule in rules), *removed]:
        if state.key in errors:
            plans.append(SyncPlan(state.name, error=errors[state.key]))
            continue
        names = [str(each) for each in wanted.get(state.key, ())]
        pinned = {str(each) for each in state.pins}
        others = [each for each in after if each.key != state.key]
        unpins = sync_states.plan_unpins(state, names, others)
        plans.append(
            SyncPlan(
                state.name,
                [each for each in names if each not in pinned],
                [each for each in names if each in pinned],
                [str(each) for each in unpins],
                problems.get(state.key) or None,
            )
        )
    return plans


def _print_plans(plans: Sequence[SyncPlan], as_json: bool) -> None:
    if as_json:
        print_json([asdict(each) for each in plans])
    for plan in () if as_json else plans:
        click.echo(plan.rule)
        for verb in ("pull", "keep", "unpin"):
            for image in getattr(plan, verb):
                click.echo(f"  {verb} {image}")
        if plan.error:
            click.echo(f"  error: {plan.error}")
    if any(each.error for each in plans):
        raise SystemExit(1)


@implementer(IRegistry)
class NamespaceQuery:
    """Asks a mirror over HTTP for the registry that a request names, by ``ns`` in the query."""

    def __init__(self, registry: IRegistry) -> None:
        self._registry = registry

    async def fetch(self, request: RegistryRequest) -> Answer:
        if request.namespace is None:
            return await self._registry.fetch(request)
        query = (*request.query, ("ns", request.namespace))
        return await self._registry.fetch(evolve(request, query=query, namespace=None))
