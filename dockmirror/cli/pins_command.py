"""``dockmirror pin``, ``unpin`` and ``pins``: images that stay."""

from __future__ import annotations

import time

import click

from ..app.naming import parse_image_name
from ..config.settings import Settings
from ..oci.platform import Platform
from ..store import pins as store
from ..store.pins import Pin
from .context import Context
from .output import ago, show_json, show_table, timestamp
from .output import as_json as json_option
from .platforms import platforms_option
from .store_access import store_of


@click.command("pin", short_help="Images that stay, whatever the budget.")
@platforms_option
@click.argument("images", nargs=-1, required=True)
@click.pass_obj
def pin(context: Context, platforms: tuple[Platform, ...], images: tuple[str, ...]) -> None:
    """Has the mirror keep IMAGES: they are never evicted, and what their tags name is fetched every 6 hours.

    A mirror that runs fetches at once what is pinned.

    Exit status: 0, or 1 where there is no cache.
    """
    settings = context.settings
    wanted = [_pin(image, settings, platforms) for image in images]
    root = store_of(settings)
    for each in wanted:
        store.add_pin(root, each)
        click.echo(f"{each} is pinned")


@click.command("unpin", short_help="Images that may go again.")
@click.argument("images", nargs=-1, required=True)
@click.pass_obj
def unpin(context: Context, images: tuple[str, ...]) -> None:
    """Lets IMAGES be evicted as others are.

    Exit status: 0, or 1 where one of them was not pinned.
    """
    settings = context.settings
    unwanted = [_pin(image, settings) for image in images]
    root = store_of(settings)
    missing = [str(each) for each in unwanted if not store.remove_pin(root, each)]
    if missing:
        raise click.ClickException(f"{', '.join(missing)}: not pinned")


@click.command("pins", short_help="What is pinned.")
@json_option
@click.pass_obj
def pins(context: Context, as_json: bool) -> None:
    """What is pinned, and when it was fetched or confirmed last.

    Exit status: 0, or 1 where there is no cache.
    """
    pinned = list(store.iter_pins(store_of(context.settings)))
    if as_json:
        show_json(
            [
                {
                    "image": str(each),
                    "platforms": [str(platform) for platform in each.platforms],
                    "refreshed": timestamp(refreshed) if refreshed else None,
                }
                for each, refreshed in pinned
            ]
        )
        return
    now = time.time()
    rows = [
        (str(each), ", ".join(map(str, each.platforms)) or "all", ago(now - when) if when else "not yet")
        for each, when in pinned
    ]
    show_table(("image", "platforms", "refreshed"), rows)


def _pin(image: str, settings: Settings, platforms: tuple[Platform, ...] = ()) -> Pin:
    try:
        name = parse_image_name(image, settings)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    return Pin(name.repository, name.reference, platforms)
