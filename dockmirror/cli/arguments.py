"""Options that several commands have, and the completion of image names in a shell."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from attrs import frozen
from click.shell_completion import CompletionItem

from ..config.settings import ConfigurationError, Settings
from ..oci.manifest import Platform
from ..oci.token import Credentials
from ..store.held_images import HeldImages
from .command_context import SETTINGS_FILE, Context, find_store

if TYPE_CHECKING:
    from ..interfaces import IRegistry

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class ParsedType(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """The type of values that a function reads.

    :param name: stands for the value in the help.
    :param parse: raises ValueError with the message for the user.
    """

    def __init__(self, name: str, parse: Callable[[str], object]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: str, param: click.Parameter | None, context: click.Context | None) -> object:
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, context)


PLATFORM = ParsedType("os/arch[/variant]", Platform.parse)
"""A platform, such as ``linux/amd64`` or ``linux/arm/v7``."""
platforms_option = click.option(
    "--platform", "platforms", type=PLATFORM, multiple=True,
    help="Only this platform of a multi-platform image; repeatable.",
)  # fmt: skip


_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_MIRROR_OPTIONS = (
    click.option(
        "--mirror", metavar="URL",
        help="Address of the mirror.  Default: this machine, port from the settings.",
    ),
    click.option("--ca-file", type=_FILE, help="Trust these CA certificates for the mirror too."),
    click.option("--user", help="Log in to the mirror with this username."),
    click.option("--password-file", type=_FILE, help="File with the password of --user."),
)  # fmt: skip


@frozen
class MirrorOptions:
    """The options that say where the running mirror is, and with which login to ask it."""

    mirror: str | None
    ca_file: Path | None
    user: str | None
    password_file: Path | None

    def check_goes_with(self, option: str, is_given: bool) -> None:
        """:raises click.UsageError: when some are given without the option that asks the mirror."""
        if not is_given and any((self.mirror, self.ca_file, self.user, self.password_file)):
            raise click.UsageError(f"--mirror, --ca-file, --user and --password-file go with {option}")

    def make_connect(self, settings: Settings) -> Callable[[Any], IRegistry]:
        """Read what the options name; return a function that connects to the mirror with a reactor.

        The mirror is asked for repositories by the names in the store.

        :raises click.UsageError: when they are invalid, or needed because the settings name no port.
        """
        from ..app.naming import ask_by_store_names
        from .running_mirror import local_mirror, mirror_at, open_mirror

        try:
            mirror = (
                mirror_at(self.mirror, self.ca_file) if self.mirror else local_mirror(settings, self.ca_file)
            )
        except ConfigurationError as error:
            raise click.UsageError(f"{error}: give its address with --mirror") from None
        except ValueError as error:
            raise click.UsageError(f"--mirror: {error}") from None
        credentials = self._read_credentials()

        def connect(reactor: Any) -> IRegistry:
            return ask_by_store_names(open_mirror(mirror, credentials, reactor), settings)

        return connect

    def _read_credentials(self) -> Credentials | None:
        if (self.user is None) != (self.password_file is None):
            raise click.UsageError("--user and --password-file have to be given together")
        if self.user is None or self.password_file is None:
            return None
        return Credentials.basic(self.user, self.password_file.read_text().rstrip("\n"))


def mirror_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of ``MirrorOptions``, which it takes as ``mirror``."""

    @wraps(command)
    def run(
        *arguments: Any, mirror: str | None, ca_file: Path | None, user: str | None,
        password_file: Path | None, **others: Any,
    ) -> None:  # fmt: skip
        command(*arguments, mirror=MirrorOptions(mirror, ca_file, user, password_file), **others)

    for option in reversed(_MIRROR_OPTIONS):
        run = option(run)
    return run


_SHORT = ("docker.io/library/", "docker.io/")
"""The beginnings of Docker Hub's names that users leave out."""


def complete_repository(context: click.Context, _: click.Parameter, word: str) -> list[CompletionItem]:
    """Complete the name of a repository in the cache."""
    images = _open_images(context)
    names = [] if images is None else [str(each) for each in images.list_repositories()]
    return [CompletionItem(name) for name in names if name.startswith(word)]


def complete_image(context: click.Context, parameter: click.Parameter, word: str) -> list[CompletionItem]:
    """Complete the name of an image in the cache, with its tag.

    bash splits words at colons: then the name stands in the words before, and only the tag is completed.
    """
    before: tuple[str, ...] = context.params.get(parameter.name or "") or ()
    name = ""
    if word == ":" and before:
        name, word = f"{before[-1]}:", ""
    elif len(before) > 1 and before[-1] == ":":
        name = f"{before[-2]}:"
    elif before and before[-1].endswith(":"):
        name = before[-1]
    images = _open_images(context)
    found = [] if images is None else list(_image_names(images, name + word))
    return [CompletionItem(each.removeprefix(name)) for each in found]


def _image_names(images: HeldImages, beginning: str) -> Iterator[str]:
    for repository in images.list_repositories():
        name = str(repository)
        short = next((name.removeprefix(each) for each in _SHORT if name.startswith(each)), name)
        for spelling in dict.fromkeys((name, short)):
            path, colon, tag = beginning.partition(":")
            if not spelling.startswith(path) or (colon and spelling != path):
                continue
            for each in images.list_tags(repository):
                if str(each).startswith(tag):
                    yield f"{spelling}:{each}"


def _open_images(context: click.Context) -> HeldImages | None:
    """Return the cache's images, or None if the settings or the cache cannot be read.

    A shell asks before any command has run, so the settings file is looked up here.
    """
    environ = dict(os.environ)
    given = context.meta.get(SETTINGS_FILE) or context.find_root().params.get("file")
    try:
        settings = Context({"config": given}, environ).settings
        return HeldImages(find_store(settings))
    except (ConfigurationError, click.ClickException, OSError):
        return None
