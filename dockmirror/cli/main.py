"""The ``dockmirror`` command; each of its subcommands has a module beside this one."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ..config.settings import ConfigurationError
from .command_group import CommandGroup
from .context import Context
from .lazy_commands import LazyCommands

_COMMANDS = {
    "check": "check:check",
    "client": "client_command:client",
    "config": "config_command:config",
    "export": "export_command:export",
    "gc": "store_commands:gc",
    "import": "import_command:import_",
    "ls": "ls:ls",
    "node": "node_command:node",
    "pin": "pins_command:pin",
    "pins": "pins_command:pins",
    "reload": "mirror_process:reload",
    "rm": "rm:rm",
    "serve": "serve:serve",
    "status": "status_command:status",
    "unpin": "pins_command:unpin",
    "usage": "store_commands:usage",
    "verify": "store_commands:verify",
    "version": "status_command:version",
    "warm": "warm:warm",
}
"""The module and the name of each command: importing all of them would take longer than most commands run."""


@click.group(
    cls=CommandGroup, commands=LazyCommands(_COMMANDS),
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip
@click.version_option(package_name="dockmirror")
@click.option(
    "-c", "--config", "file", type=click.Path(path_type=Path),
    help="Settings file of the mirror.  Default: $DOCKMIRROR_CONFIG, or /etc/dockmirror.toml if it exists.",
)  # fmt: skip
@click.pass_context
def main(context: click.Context, file: Path | None) -> None:
    """Run, inspect and maintain a mirror of container registries.

    Start the mirror with 'dockmirror serve'.

    Exit status: 0 on success, 1 when a check or an operation fails, 2 when the command or the settings are
    invalid.
    """
    context.obj = Context({"config": file}, dict(os.environ))


def run() -> None:
    """Run the command; report invalid settings like an invalid option, and errors of the system in a line."""
    try:
        main()
    except ConfigurationError as error:
        click.echo(f"dockmirror: {error}", err=True)
        raise SystemExit(2) from None
    except OSError as error:  # such as a full disk
        place = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        click.echo(f"Error: {place}{error.strerror or error}", err=True)
        raise SystemExit(1) from None
