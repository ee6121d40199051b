"""The group of subcommands: other names for some, and the settings file as an option of each."""

from __future__ import annotations

from pathlib import Path

import click
from attrs import evolve

from .context import Context

ALIASES = {"list": "ls", "images": "ls", "remove": "rm", "start": "serve"}
"""Names that users of other programs try."""
_FILE = "settings_file"
SETTINGS_FILE = "dockmirror.settings_file"
"""The key of the file that was given after a subcommand, in the context's ``meta``."""


def _use_settings_file(context: click.Context, _: click.Parameter, file: Path | None) -> None:
    if file is None:
        return
    context.meta[SETTINGS_FILE] = file
    if isinstance(context.obj, Context):
        context.obj = evolve(context.obj, options={**context.obj.options, "config": file})


def make_config_option() -> click.Option:
    """Return the option that names the settings file, for a subcommand; it wins over that of the group."""
    return click.Option(
        ["-c", "--config", _FILE], type=click.Path(path_type=Path), expose_value=False,
        callback=_use_settings_file, help="Settings file of the mirror.",
    )  # fmt: skip


class CommandGroup(click.Group):
    """Subcommands that are also found by their aliases; each takes the settings file as an option."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        command = super().get_command(ctx, ALIASES.get(cmd_name, cmd_name))
        if command is not None and all(option.name != _FILE for option in command.params):
            command.params.append(make_config_option())
        return command
