"""Print tables, JSON, sizes, ages and progress bars."""

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

from ..config.sizes import format_size as format_size
from ..oci.digest import Digest


def format_age(seconds: float) -> str:
    """Format an age in its largest unit."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit} ago"
    return "just now"


def format_time(seconds: float) -> str:
    """Format a time for JSON."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def shorten_digest(digest: Digest) -> str:
    """Shorten a digest to the part that people compare."""
    return f"{digest.algorithm}:{digest.hex[:12]}"


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str] = ()) -> None:
    """Print a table; a cell that is too wide for the terminal is folded, not cut."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        if name in right:
            table.add_column(name, justify="right", no_wrap=True)
        else:
            table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(highlight=False, markup=False, soft_wrap=False).print(table)


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))


def progress_bars(what: str) -> Progress:
    """Return progress bars on standard error, disabled unless that is a terminal.

    They leave room at the end of a line of 80 for the "^C" that a terminal writes there: it would fold the
    line, and a part of it would stay.

    :param what: a title for all bars; when empty, each bar shows its own.
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
