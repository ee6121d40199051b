"""Options that several commands have, and the completion of image names in a shell."""

from __future__ import annotations

import os
from collections.abc import Iterator

import click
from click.shell_completion import CompletionItem

from ..config.settings import ConfigurationError
from ..oci.manifest import Platform
from ..store.held_images import HeldImages
from .command_context import SETTINGS_FILE, Context, find_store

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class PlatformType(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """A platform, such as ``linux/amd64`` or ``linux/arm/v7``."""

    name = "os/arch[/variant]"

    def convert(self, value: str, param: click.Parameter | None, context: click.Context | None) -> Platform:
        try:
            return Platform.parse(value)
        except ValueError as error:
            self.fail(str(error), param, context)


platforms_option = click.option(
    "--platform", "platforms", type=PlatformType(), multiple=True,
    help="Only this platform of a multi-platform image; repeatable.",
)  # fmt: skip


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
