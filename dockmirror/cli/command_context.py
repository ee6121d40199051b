"""The settings, the store, the reactor and the output that a command works with.

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
import os
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import TypeVar

from attrs import frozen

from ..app.naming import ImageName, complete_image_pattern, parse_client_name, parse_image_name
from ..config.explain import SettingsSource
from ..config.load import find_origin, find_settings_file, merge_sources, read_sources
from ..config.settings import Settings
from ..store import layout
from ..store.store_directory import NewerFormat, check_directory_format

T = TypeVar("T")
SETTINGS_FILE = "dockmirror.settings_file"
"""The key of the file that was given after a subcommand, in the ``meta`` of click's context."""


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


@frozen
class Context:
    """The options and the environment of the command."""

    options: Mapping[str, Any]
    environ: Mapping[str, str]

    @property
    def file(self) -> Path | None:
        """The settings file, or None if there is none."""
        return find_settings_file(self.options.get("config"), self.environ)

    @property
    def sources(self) -> Sequence[SettingsSource]:
        """The values of all sources of settings.

        :raises ConfigurationError: when a file is invalid.
        """
        return read_sources({**self.options, "config": self.file}, self.environ)

    @property
    def settings(self) -> Settings:
        """The settings in force.

        :raises ConfigurationError: when they are invalid.
        """
        return merge_sources(self.sources)


def open_for_change(context: Context) -> tuple[Settings, Path]:
    """Return the settings and the store's directory, and say on standard error which cache that is.

    :raises click.ClickException: as ``open_store`` does.
    """
    sources = context.sources
    settings = merge_sources(sources)
    origin, file = find_origin(sources, ("cache",)), context.file
    if origin == sources[0].name:
        origin = f"the default; {f'settings: {file}' if file else 'there is no settings file'}"
    else:
        origin = f"from {origin}"
    root = open_store(settings)
    click.echo(f"cache: {settings.cache} ({origin})", err=True)
    return settings, root


def open_store(settings: Settings) -> Path:
    """Return the store's directory after dropping root's rights for those of its owner.

    Otherwise root would leave files there that the mirror could not change.  Read everything that needs root
    before this call.

    :raises click.ClickException: when there is no store.
    """
    directory = find_store(settings)
    status = directory.stat()
    if os.geteuid() != 0 or status.st_uid == 0:
        return directory
    os.chdir(directory)  # its owner may lack access to a parent: systemd keeps it below a directory of root's
    os.setgroups([])
    os.setgid(status.st_gid)
    os.setuid(status.st_uid)
    return Path()


def find_store(settings: Settings) -> Path:
    """Return the store's directory, for commands that only read.

    :raises click.ClickException: when there is no store, its owner alone may read it, or a newer version has
        written it.
    """
    root = settings.cache
    try:
        exists = root is not None and (root / layout.BLOBS).is_dir()
        if root is not None and exists:
            check_directory_format(root)
    except PermissionError:
        raise click.ClickException(
            f"permission denied: only its owner may read the cache in {root}; run the command as that user"
        ) from None
    except NewerFormat as error:
        raise click.ClickException(f"the cache in {root} cannot be used: {error}") from None
    if root is None or not exists:
        raise click.ClickException(f"there is no cache in {root}: 'dockmirror serve' creates it")
    return root


def parse_image(text: str, settings: Settings) -> ImageName:
    """Parse an image's name as it is given on the command line; note another name at the upstream.

    :raises click.UsageError: when it is not a name of an image.
    """
    try:
        name, written = parse_image_name(text, settings), parse_client_name(text, settings)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if name != written:
        print_note(f"{written} is {name} at its upstream")
    return name


def parse_glob(text: str, settings: Settings) -> str:
    """Return the glob of images in the store and the history for a name or a pattern on the command line.

    :raises click.UsageError: when it is no name of an image.
    """
    try:
        return complete_image_pattern(text, settings)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def run_with_reactor(coroutine: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
    """Run the coroutine with the reactor, and return its result.

    :raises Abort: when the user interrupted it; the coroutine was cancelled then.
    """
    from twisted.internet.defer import CancelledError, Deferred
    from twisted.internet.task import react
    from twisted.python.failure import Failure

    outcome: list[T | Failure] = []

    def start(reactor: Any) -> Deferred[None]:
        result = Deferred.fromCoroutine(coroutine(reactor))
        reactor.addSystemEventTrigger("before", "shutdown", result.cancel)
        return result.addBoth(outcome.append)

    try:
        react(start)
    except SystemExit:
        if not outcome:
            raise click.Abort from None
    if isinstance(outcome[0], Failure):
        if outcome[0].check(CancelledError):
            raise click.Abort
        outcome[0].raiseException()
    return outcome[0]
