"""``dockmirror pin``, ``unpin`` and ``pins``: keep images in the cache."""

from __future__ import annotations

import time

import click

from ..config.settings import Settings
from ..oci.manifest import Platform
from ..store import pins as store
from ..store.pins import Pin
from .context import Context, open_for_change, open_store, parse_image
from .image_completion import complete_image
from .options import json_option, platforms_option
from .output import format_age, format_time, print_json, print_note, print_table


@click.command("pin", short_help="Keep images in the cache, whatever its budget.")
@json_option
@platforms_option
@click.argument("images", nargs=-1, required=True, shell_complete=complete_image)
@click.pass_obj
def pin(context: Context, as_json: bool, platforms: tuple[Platform, ...], images: tuple[str, ...]) -> None:
    """Keep IMAGES in the cache: they are never evicted, and their tags are refreshed every 6 hours.

    A running mirror fetches pinned images at once.

    Exit status: 0, or 1 when there is no cache.
    """
    settings = context.settings
    new_pins = [_pin(image, settings, platforms) for image in images]
    _, root = open_for_change(context)
    for each in new_pins:
        store.add_pin(root, each)
        if not as_json:
            click.echo(f"{each} is pinned")
    if as_json:
        print_json({"pinned": [str(each) for each in new_pins]})


@click.command("unpin", short_help="Let pinned images be evicted again.")
@json_option
@click.argument("images", nargs=-1, required=True, shell_complete=complete_image)
@click.pass_obj
def unpin(context: Context, as_json: bool, images: tuple[str, ...]) -> None:
    """Unpin IMAGES, so that they can be evicted like others.

    Exit status: 0, or 1 when one of them was not pinned.
    """
    settings = context.settings
    unwanted = [_pin(image, settings) for image in images]
    _, root = open_for_change(context)
    missing = [str(each) for each in unwanted if not store.remove_pin(root, each)]
    if as_json:
        print_json({"unpinned": [str(each) for each in unwanted if str(each) not in missing]})
    if missing:
        raise click.ClickException(f"{', '.join(missing)}: not pinned")


@click.command("pins", short_help="List the pinned images.")
@json_option
@click.pass_obj
def pins(context: Context, as_json: bool) -> None:
    """List the pinned images, and when each was last refreshed.

    Exit status: 0, or 1 when there is no cache.
    """
    settings = context.settings
    pinned = list(store.iter_pins(open_store(settings)))
    if as_json:
        print_json(
            [
                {
                    "image": str(each),
                    "platforms": [str(platform) for platform in each.platforms],
                    "refreshed": format_time(refreshed) if refreshed else None,
                }
                for each, refreshed in pinned
            ]
        )
        return
    if not pinned:
        print_note(f"no image is pinned in the cache {settings.cache}")
        return
    now = time.time()
    rows = [
        (
            str(each),
            ", ".join(map(str, each.platforms)) or "all",
            format_age(now - when) if when else "not yet",
        )
        for each, when in pinned
    ]
    print_table(("image", "platforms", "refreshed"), rows)


def _pin(image: str, settings: Settings, platforms: tuple[Platform, ...] = ()) -> Pin:
    name = parse_image(image, settings)
    return Pin(name.repository, name.reference, platforms)
