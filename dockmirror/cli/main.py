"""The ``dockmirror`` command; each of its subcommands has a module beside this one."""

from __future__ import annotations

import os
from collections import UserDict
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from attrs import evolve

from ..config.settings import ConfigurationError
from ..oci.errors import summarize_error
from .command_context import SETTINGS_FILE, Context


class LazyCommands(UserDict[str, Any]):
    """Commands by their names, each as "module:name"; it is imported when it is looked up."""

    def __getitem__(self, name: str) -> click.Command:
        module, _, attribute = self.data[name].partition(":")
        command: click.Command = getattr(import_module(f".{module}", __package__), attribute)
        return command


ALIASES = {"list": "ls", "images": "ls", "remove": "rm", "start": "serve"}
"""Names that users of other programs try."""
_FILE = "settings_file"


def _use_settings_file(context: click.Context, _: click.Parameter, file: Path | None) -> None:
    if file is None:
        return
    context.meta[SETTINGS_FILE] = file
    if isinstance(context.obj, Context):
        context.obj = evolve(context.obj, options={**context.obj.options, "config": file})


class CommandGroup(click.Group):
    """Subcommands that are also found by their aliases.

    Each takes the settings file as an option, which wins over that of the group.
    """

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        command = super().get_command(ctx, cmd_name) or super().get_command(ctx, ALIASES.get(cmd_name, ""))
        if command is not None and all(option.name != _FILE for option in command.params):
            command.params.append(
                click.Option(
                    ["-c", "--config", _FILE], type=click.Path(path_type=Path), expose_value=False,
                    callback=_use_settings_file, help="Settings file of the mirror.",
                )
            )  # fmt: skip
        return command


_COMMANDS = {
    "check": "check_command:check",
    "client": "client_command:client",
    "config": "process_commands:config",
    "export": "export_command:export",
    "gc": "store_commands:gc",
    "history": "history_commands:history",
    "import": "import_command:import_",
    "lock": "lock_commands:lock",
    "ls": "image_commands:ls",
    "node": "node_command:node",
    "pin": "image_commands:pin",
    "pins": "image_commands:pins",
    "policy": "policy_commands:policy",
    "recall": "recall_commands:recall",
    "reload": "process_commands:reload",
    "report": "history_commands:report",
    "rm": "image_commands:rm",
    "serve": "process_commands:serve",
    "status": "status_commands:status",
    "sync": "sync_command:sync",
    "top": "status_commands:top",
    "unpin": "image_commands:unpin",
    "usage": "store_commands:usage",
    "verify": "store_commands:verify",
    "version": "process_commands:version",
    "warm": "warm_command:warm",
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
        click.echo(f"Error: {summarize_error(error)}", err=True)
        raise SystemExit(1) from None
