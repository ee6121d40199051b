"""The settings, the store and the reactor that a command works with."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from attrs import frozen

from ..app.naming import ImageName, complete_image_pattern, parse_client_name, parse_image_name
from ..config.explain import SettingsSource
from ..config.load import find_origin, find_settings_file, merge_sources, read_sources
from ..config.settings import Settings
from ..store import layout
from ..store.store_directory import NewerFormat, check_directory_format
from .output import print_note

T = TypeVar("T")
SETTINGS_FILE = "dockmirror.settings_file"
"""The key of the file that was given after a subcommand, in the ``meta`` of click's context."""


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
