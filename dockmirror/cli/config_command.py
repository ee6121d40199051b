"""``dockmirror config``: what is in force, and where each value has come from."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence

import click
from attrs import frozen
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from ..config.load import SettingsSource, origin
from ..config.sizes import Amount
from .context import Context

_PASSWORD = re.compile(r"^((?:[^:/?#@]+://)?[^:]*):.*@", re.DOTALL)
"""The name and the password of an address, which may have any characters, also where it is none."""
_TABLES = {"upstreams", "access"}


@frozen
class SettingRow:
    """One setting: its value as it would stand in the file."""

    key: str
    value: object
    source: str


@click.command("config", short_help="What is in force, and where each value has come from.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, a list of objects.")
@click.option("--all", "everything", is_flag=True, help="With what nobody has said anything about.")
@click.argument("prefix", default="")
@click.pass_obj
def config(context: Context, as_json: bool, everything: bool, prefix: str) -> None:
    """What is in force, and where it has come from: a file, the environment, or what holds by itself.

    PREFIX shows only the keys that begin so, such as "upstreams.docker".  Passwords are masked.

    Exit status: 0; 2 where the settings are wrong.
    """
    said = context.said
    rows = [row for row in _rows(context.settings, said) if row.key.startswith(prefix)]
    if not rows:
        raise click.UsageError(f"there is no setting that begins with {prefix!r}")
    if not everything and not prefix:
        unsaid = {source.name for source in said[:2]}
        rows = [row for row in rows if not row.key.startswith("upstreams.") or row.source not in unsaid]
    if as_json:
        click.echo(json.dumps([{"key": r.key, "value": r.value, "source": r.source} for r in rows], indent=2))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("key", "value", "from"):
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(row.key, json.dumps(row.value, ensure_ascii=False), row.source)
    Console(highlight=False, markup=False).print(table)


def _rows(
    model: BaseModel, said: Sequence[SettingsSource], path: tuple[str, ...] = ()
) -> Iterator[SettingRow]:
    for name, field in type(model).model_fields.items():
        key, value = field.alias or name, getattr(model, name)
        where = (*path, key)
        if isinstance(value, BaseModel):
            yield from _rows(value, said, where)
        elif key in _TABLES and isinstance(value, Mapping):
            for each, inner in value.items():
                yield from _rows(inner, said, (*where, each))
        else:
            shown = _PASSWORD.sub(r"\1:…@", value) if key == "proxy" and value else _plain(value)
            yield SettingRow(".".join(where), shown, origin(said, where))


def _plain(value: object) -> object:
    """Return a value as JSON and TOML have it."""
    match value:
        case Amount():
            return str(value)
        case None | bool() | int() | float():
            return value
        case tuple():
            return [_plain(each) for each in value]
        case Mapping():
            return {key: _plain(each) for key, each in value.items()}
        case _:
            return str(value)
