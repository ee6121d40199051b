"""Print tables, JSON, sizes, ages and progress bars.

``rich`` is imported where it is used: the mirror itself, which prints none of these, saves 2 MB.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from ..oci.digest import Digest

if TYPE_CHECKING:
    from rich.progress import Progress


def format_age(seconds: float) -> str:
    """Format an age in its largest unit."""
    return f"{format_time(seconds)} ago" if seconds >= 60 else "just now"


def format_time(seconds: float) -> str:
    """Format a length of time in its largest unit."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} s"


def shorten_digest(digest: Digest) -> str:
    """Shorten a digest to the part that people compare."""
    return f"{digest.algorithm}:{digest.hex[:12]}"


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str] = ()) -> None:
    """Print a table; on a terminal a cell that is too wide is folded, elsewhere each row is one line."""
    if not sys.stdout.isatty():
        click.echo("\n".join(_format_rows([columns, *rows], [name in right for name in columns])))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        if name in right:
            table.add_column(name, justify="right", no_wrap=True)
        else:
            table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(highlight=False, markup=False, soft_wrap=False).print(table)


def _format_rows(rows: Iterable[Sequence[str]], is_right: Sequence[bool]) -> Iterator[str]:
    """Yield each row as one line, with columns as wide as their widest cell."""
    from rich.cells import cell_len

    cells = [[", ".join(cell.splitlines()) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        padded = (
            " " * (width - cell_len(cell)) + cell if right else cell + " " * (width - cell_len(cell))
            for cell, width, right in zip(row, widths, is_right, strict=True)
        )
        yield "  ".join(padded).rstrip()


def print_note(text: str) -> None:
    """Print a sentence for people on standard error, so that a program that reads the output gets none."""
    click.echo(text, err=True)


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))


def progress_bars(what: str) -> Progress:
    """Return progress bars on standard error, disabled unless that is a terminal.

    They leave room at the end of a line of 80 for the "^C" that a terminal writes there: it would fold the
    line, and a part of it would stay.

    :param what: a title for all bars; when empty, each bar shows its own.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.table import Column

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


def report_progress(pieces: Iterable[bytes], report: Callable[[int], None]) -> Iterator[bytes]:
    """Yield the pieces, and report the size of each once it was taken."""
    for piece in pieces:
        yield piece
        report(len(piece))
