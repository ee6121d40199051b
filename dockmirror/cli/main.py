"""The command itself; each of its commands has a module beside this one."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ..config.settings import ConfigurationError
from .check import check
from .client_command import client
from .config_command import config
from .context import Context
from .export_command import export
from .gc import gc
from .import_command import import_
from .ls import ls
from .pins_command import pin, pins, unpin
from .rm import rm
from .usage_command import usage
from .verify import verify
from .warm import warm


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dockmirror")
@click.option(
    "-c", "--config", "file", type=click.Path(path_type=Path),
    help="The file of settings that the mirror runs with.",
)  # fmt: skip
@click.pass_context
def main(context: click.Context, file: Path | None) -> None:
    """What belongs to a mirror of container registries, beside the mirror itself.

    The mirror is started by 'twistd -n --pidfile= dockmirror'.

    Exit status: 0 when all is well, 1 when what was asked for is not so or cannot be done, 2 when the command
    or the settings are wrong.
    """
    context.obj = Context({"config": file}, dict(os.environ))


_COMMANDS = (
    *(config, client, ls, usage, rm, verify, gc, export, import_),
    *(check, warm, pin, unpin, pins),
)
for command in _COMMANDS:
    main.add_command(command)


def run() -> None:
    """The entry point: settings that are wrong are told of as any wrong option is."""
    try:
        main()
    except ConfigurationError as error:
        click.echo(f"dockmirror: {error}", err=True)
        raise SystemExit(2) from None
