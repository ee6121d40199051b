"""``dockmirror serve``: run the mirror in the foreground."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import partial
from typing import Any

import click

from ..config.options import Options
from ..config.settings_file import load_found
from .context import Context

_OWN = {"config", "version"}
"""Options that the command has by itself."""


def _make_options() -> Iterator[click.Option]:
    """Yield the options of ``twistd dockmirror``."""
    for long, short, _, text in Options.optParameters:
        if long not in _OWN:
            yield click.Option([f"--{long}", *([f"-{short}"] if short else [])], help=text)
    for long, _, text in Options.optFlags:
        yield click.Option([f"--{long}"], is_flag=True, help=text)
    for name, method in vars(Options).items():
        long = name.removeprefix("opt_")
        if name.startswith("opt_") and long not in _OWN:
            text = " ".join((inspect.getdoc(method) or "").split())
            yield click.Option([f"--{long}"], multiple=True, help=text)


@click.pass_obj
def _serve(context: Context, /, **values: Any) -> None:
    """Run the mirror in the foreground until Ctrl-C or SIGTERM.

    Running transfers finish first; a second Ctrl-C or SIGTERM stops now.  SIGHUP reads the settings again.
    The log and the access log go to standard output.

    Exit status: 0; 1 when the mirror cannot listen, 2 when the settings are invalid.
    """
    from ..app.service import run_mirror

    given = {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
    options = {**given, "config": context.options.get("config")}
    run_mirror(partial(load_found, options, context.environ), context.environ)


serve = click.version_option(package_name="dockmirror")(
    click.Command(
        "serve",
        callback=_serve,
        params=list(_make_options()),
        help=inspect.getdoc(_serve),
        short_help="Run the mirror in the foreground.",
    )
)
