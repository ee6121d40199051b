"""``dockmirror check``: diagnose whether the mirror can pull from its upstreams."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import click
from attrs import asdict

from .context import Context
from .options import json_option
from .output import print_json, print_table

if TYPE_CHECKING:
    from .diagnostics import Diagnosis


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
    from .diagnostics import diagnose_all
    from .reactor import run

    settings = context.settings
    for name in upstreams:
        if name not in settings.upstreams:
            raise click.UsageError(f"there is no upstream {name}, only {', '.join(settings.upstreams)}")
    diagnoses = run(partial(diagnose_all, settings, context.environ, upstreams or list(settings.upstreams)))
    if as_json:
        print_json([{**asdict(each), "ok": each.ok} for each in diagnoses])
    else:
        print_table(("upstream", "step", "", "result"), _rows(diagnoses))
    raise SystemExit(0 if all(each.ok for each in diagnoses) else 1)


def _rows(diagnoses: Sequence[Diagnosis]) -> Iterator[Sequence[str]]:
    for each in diagnoses:
        for number, step in enumerate(each.steps):
            yield (
                "" if number else each.upstream,
                step.name,
                "✓" if step.ok else "✗",
                step.result,
            )
