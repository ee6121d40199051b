"""What commands print: tables, sizes, ages, progress."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column, Table

from ..oci.digest import Digest

as_json = click.option("--json", "as_json", is_flag=True, help="As JSON.")
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def size(count: float) -> str:
    """Bytes as people read them, in decimal units as in the settings."""
    for unit in _UNITS[:-1]:
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} {_UNITS[-1]}"


def ago(seconds: float) -> str:
    """A span of time in its largest unit."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit} ago"
    return "just now"


def timestamp(seconds: float) -> str:
    """A time as programs read it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def short(digest: Digest) -> str:
    """As much of a digest as people compare."""
    return f"{digest.algorithm}:{digest.hex[:12]}"


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str] = ()) -> None:
    """A table; what is too wide for the terminal is folded, and nothing is left out."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        if name in right:
            table.add_column(name, justify="right", no_wrap=True)
        else:
            table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(highlight=False, markup=False, soft_wrap=False).print(table)


def show_json(value: Any) -> None:
    """For programs."""
    click.echo(json.dumps(value, indent=2))


def progress(what: str) -> Progress:
    """Bars on standard error, where that is a terminal: what all say or each says; bytes, rate, time left.

    They leave room at the end of a line of 80 for the "^C" that a terminal writes there: it would fold the
    line, of which a part would stay.
    """
    console = Console(stderr=True)
    return Progress(
        TextColumn(what or "{task.description}"),
        BarColumn(20),
        DownloadColumn(table_column=Column(no_wrap=True, justify="right")),
        TransferSpeedColumn(table_column=Column(no_wrap=True, justify="right")),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
