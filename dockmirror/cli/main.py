"""The ``dockmirror`` command; each of its subcommands has a module beside this one."""

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
from .import_command import import_
from .ls import ls
from .node_command import node
from .pins_command import pin, pins, unpin
from .rm import rm
from .store_commands import gc, usage, verify
from .warm import warm


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dockmirror")
@click.option(
    "-c", "--config", "file", type=click.Path(path_type=Path),
    help="Settings file of the mirror.",
)  # fmt: skip
@click.pass_context
def main(context: click.Context, file: Path | None) -> None:
    """Inspect and maintain a mirror of container registries.

    Start the mirror itself with 'twistd -n --pidfile= dockmirror'.

    Exit status: 0 on success, 1 when a check or an operation fails, 2 when the command or the settings are
    invalid.
    """
    context.obj = Context({"config": file}, dict(os.environ))


_COMMANDS = (
    *(config, client, ls, usage, rm, verify, gc, export, import_),
    *(check, warm, pin, unpin, pins, node),
)
for command in _COMMANDS:
    main.add_command(command)


def run() -> None:
    """Run the command; report invalid settings like an invalid option."""
    try:
        main()
    except ConfigurationError as error:
        click.echo(f"dockmirror: {error}", err=True)
        raise SystemExit(2) from None
