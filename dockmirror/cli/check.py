"""``dockmirror check``: whether the mirror can pull from its upstreams."""

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
from ..upstream.resolvers import threaded_resolver
from .context import Context
from .diagnostics import Diagnosis, diagnose
from .output import as_json as json_option
from .output import show_json, show_table
from .reactor import run


@click.command("check", short_help="Whether the mirror can pull from its upstreams, and why not.")
@json_option
@click.argument("upstreams", nargs=-1)
@click.pass_obj
def check(context: Context, as_json: bool, upstreams: tuple[str, ...]) -> None:
    """Asks the UPSTREAMS, by default all, as the mirror would, and says what is wrong.

    For each of their addresses: whether its name is resolved, it is connected to, its certificate is right,
    what it demands, whether it gives the mirror a token, and how many pulls Docker Hub has left for it, which
    costs none.

    Exit status: 0 when all are well, 1 otherwise.
    """
    settings = context.settings
    for name in upstreams:
        if name not in settings.upstreams:
            raise click.UsageError(f"{name} is no upstream: expected one of {', '.join(settings.upstreams)}")
    examined = run(partial(_examined, settings, context.environ, upstreams or list(settings.upstreams)))
    if as_json:
        show_json([{**asdict(each), "well": each.well} for each in examined])
    else:
        show_table(("upstream", "step", "", "what is so"), _rows(examined))
    raise SystemExit(0 if all(each.well for each in examined) else 1)


async def _examined(
    settings: Settings, environ: Mapping[str, str], names: Sequence[str], reactor: Any
) -> list[Diagnosis]:
    resolver = threaded_resolver(reactor)
    own = load_accounts(settings, environ, partial(run_process, reactor), reactor)

    def agent_for(upstream: UpstreamSettings, reached: Callable[[str, str], None]) -> IAgent:
        return make_agent(upstream, resolver, environ, reached, reactor)

    asking = []
    for name in names:
        upstream = settings.upstreams[name]
        for number, one in enumerate(upstream.by_address()):
            account = own.get(name) if number == 0 or upstream.replicas else None
            through = parse_proxies(one, environ)
            asking.append(Deferred.fromCoroutine(diagnose(name, one, agent_for, through, reactor, account)))
    return list(await gatherResults(asking, consumeErrors=True))


def _rows(examined: Sequence[Diagnosis]) -> Iterator[Sequence[str]]:
    for each in examined:
        for number, step in enumerate(each.steps):
            yield (
                "" if number else each.upstream,
                step.name,
                "✓" if step.well else "✗",
                step.told,
            )
