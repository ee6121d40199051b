"""``dockmirror check``: diagnose whether the mirror can pull from its upstreams."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import click
from attrs import asdict
from twisted.internet.defer import Deferred, gatherResults
from twisted.web.iweb import IAgent

from ..app.upstream_stack import load_accounts, make_agent, parse_proxies
from ..config.settings import Settings, UpstreamSettings
from ..system.external_program import run_process
from ..upstream.checked_endpoint import threaded_resolver
from .context import Context
from .diagnostics import Diagnosis, diagnose
from .options import json_option
from .output import print_json, print_table
from .reactor import run


@click.command("check", short_help="Check whether the mirror can pull from its upstreams.")
@json_option
@click.argument("upstreams", nargs=-1)
@click.pass_obj
def check(context: Context, as_json: bool, upstreams: tuple[str, ...]) -> None:
    """Check the UPSTREAMS, by default all, with the mirror's own requests, and explain every failure.

    Each address of an upstream is checked step by step: name resolution, connection, TLS certificate,
    authentication, and token.  For Docker Hub the remaining pulls are shown; the check itself uses none of
    them.

    Exit status: 0 when all upstreams work, 1 otherwise.
    """
    settings = context.settings
    for name in upstreams:
        if name not in settings.upstreams:
            raise click.UsageError(f"there is no upstream {name}, only {', '.join(settings.upstreams)}")
    diagnoses = run(partial(_diagnose_all, settings, context.environ, upstreams or list(settings.upstreams)))
    if as_json:
        print_json([{**asdict(each), "ok": each.ok} for each in diagnoses])
    else:
        print_table(("upstream", "step", "", "result"), _rows(diagnoses))
    raise SystemExit(0 if all(each.ok for each in diagnoses) else 1)


async def _diagnose_all(
    settings: Settings, environ: Mapping[str, str], names: Sequence[str], reactor: Any
) -> list[Diagnosis]:
    resolver = threaded_resolver(reactor)
    all_accounts = load_accounts(settings, environ, partial(run_process, reactor), reactor)

    def agent_for(upstream: UpstreamSettings, on_connect: Callable[[str, str], None]) -> IAgent:
        return make_agent(upstream, resolver, environ, on_connect, reactor)

    running = []
    for name in names:
        upstream = settings.upstreams[name]
        for number, single in enumerate(upstream.by_address()):
            account = all_accounts.get(name) if number == 0 or upstream.replicas else None
            route = parse_proxies(single, environ)
            running.append(Deferred.fromCoroutine(diagnose(name, single, agent_for, route, reactor, account)))
    return list(await gatherResults(running, consumeErrors=True))


def _rows(diagnoses: Sequence[Diagnosis]) -> Iterator[Sequence[str]]:
    for each in diagnoses:
        for number, step in enumerate(each.steps):
            yield (
                "" if number else each.upstream,
                step.name,
                "✓" if step.ok else "✗",
                step.result,
            )
