"""``dockmirror ls``, ``rm``, ``pin``, ``unpin`` and ``pins``: commands for single images in the cache."""

from __future__ import annotations

import time
from fnmatch import fnmatchcase

import click

from ..app.naming import mirrored_registries, parse_client_name
from ..config.notation import format_size
from ..config.settings import Settings
from ..oci.digest import Digest
from ..oci.errors import DigestInvalid
from ..oci.manifest import Platform
from ..store.eviction.removal import (
    DeletableImage,
    DeletionPlan,
    delete_images,
    find_pinned,
    plan_deletions,
)
from ..store.held_images import HeldImages, ListedImage, list_images
from ..store.pins import Pin, add_pin, iter_pins, remove_pin
from ..system.times import format_timestamp
from .arguments import complete_image, complete_repository, json_option, platforms_option
from .command_context import (
    Context,
    format_age,
    open_for_change,
    open_store,
    parse_glob,
    parse_image,
    print_json,
    print_note,
    print_table,
    shorten_digest,
)


def _row(listed: ListedImage) -> tuple[str, ...]:
    """Return the cells of an image's row in the table."""
    reference = str(listed.tag) if listed.tag else shorten_digest(listed.image.digest)
    return (
        str(listed.repository),
        reference,
        format_size(listed.size),
        _completeness(listed),
        format_age(time.time() - listed.image.last_used()),
    )


def _completeness(listed: ListedImage) -> str:
    if listed.is_complete:
        return "yes"
    complete = [name.removeprefix("linux/") for name, is_held in listed.platforms.items() if is_held]
    return f"{', '.join(complete)} of {len(listed.platforms)}" if complete else "no"


@click.command("ls", short_help="List the images in the cache.")
@json_option
@click.argument("pattern", default="*", shell_complete=complete_repository)
@click.pass_obj
def ls(context: Context, as_json: bool, pattern: str) -> None:
    """List the images in the cache by tag, or by digest when they have no tag.

    PATTERN selects repositories, such as "docker.io/library/*", and with a colon tags, such as "nginx:1.*"; a
    pattern without a slash matches any part of the repository's name.

    The column "complete" says whether the cache holds the whole image, or which platforms of it; "size" adds
    up what it holds, with each layer counted once.

    Exit status: 0, even when no image matches; 1 when there is no cache.
    """
    settings = context.settings
    images = HeldImages(open_store(settings))
    path, slash, last = pattern.rpartition("/")
    last, _, tag = last.partition(":")
    name = f"{path}{slash}{last}"
    glob = parse_glob(name, settings) if "/" in name or "*" in name else f"*{name}*"
    rows = [
        listed
        for repository in images.list_repositories()
        if fnmatchcase(repository.name, glob)
        for listed in list_images(images, repository)
        if not tag or (listed.tag and fnmatchcase(listed.tag.name, tag))
    ]
    if as_json:
        print_json([listed.fields() for listed in rows])
    elif rows:
        columns = ("repository", "tag", "size", "complete", "last used")
        print_table(columns, map(_row, rows), right=("size", "last used"))
    elif pattern == "*":
        print_note(f"no image is in the cache {settings.cache} yet")
    else:
        print_note(f"no image in the cache {settings.cache} matches {pattern}")


@click.command("rm", short_help="Delete images from the cache.")
@json_option
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
@click.argument("images", nargs=-1, required=True, shell_complete=complete_image)
@click.pass_obj
def rm(context: Context, as_json: bool, yes: bool, images: tuple[str, ...]) -> None:
    """Delete IMAGES from the cache, so that the next pull fetches them again.

    A tag is deleted with its manifest, unless something else refers to that, and with everything that only
    this manifest needs.  "NAME@DIGEST" is deleted with its tags, a DIGEST alone from every repository.
    Clients that are reading a blob receive all of it.  A running mirror notices the deletion at once.  Pinned
    images are fetched again; "unpin" them first.

    Exit status: 0; 1 when one of them is not in the cache, and nothing is deleted then, or when you answer
    no.
    """
    settings, root = open_for_change(context)
    named = {image: _parse_deletable(settings, image) for image in images}
    planned = {image: plan_deletions(root, each) for image, each in named.items()}
    if missing := [image for image, plans in planned.items() if not plans]:
        verb = "is" if len(missing) == 1 else "are"
        raise click.ClickException(f"{', '.join(missing)} {verb} not in the cache")
    all_plans = [each for plans in planned.values() for each in plans]
    for each in all_plans:
        click.echo(f"{each.repository}: {_describe(each)}", err=as_json)
    for pin in find_pinned(root, all_plans):
        click.echo(f"{pin} is pinned and will be fetched again", err=as_json)
    if not yes:
        click.confirm("Delete these?", abort=True, err=as_json)
    freed = delete_images(root, named.values())
    if as_json:
        print_json({"deleted": [each.fields() for each in all_plans], "freed": freed})
    else:
        click.echo(f"freed {format_size(freed)}")


def _parse_deletable(settings: Settings, image: str) -> DeletableImage:
    try:
        return DeletableImage(None, Digest.parse(image))
    except DigestInvalid:
        name = parse_image(image, settings)
        return DeletableImage(name.repository, name.reference)


def _describe(plan: DeletionPlan) -> str:
    tags = [f"the tag {tag}" for tag in plan.tags]
    return ", ".join([*tags, *([f"{len(plan.contents)} manifests and blobs"] if plan.contents else [])])


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
    registries = mirrored_registries(settings)
    for each in new_pins:
        if each.repository.first not in registries:
            raise click.UsageError(
                f"{each}: this mirror has no registry {each.repository.first}, so no client could pull it"
            )
    _, root = open_for_change(context)
    for each in new_pins:
        add_pin(root, each)
        if not as_json:
            click.echo(f"{each} is pinned")
    if as_json:
        print_json({"pinned": [str(each) for each in new_pins]})


@click.command("unpin", short_help="Let pinned images be evicted again.")
@json_option
@click.argument("images", nargs=-1, required=True, shell_complete=complete_image)
@click.pass_obj
def unpin(context: Context, as_json: bool, images: tuple[str, ...]) -> None:
    """Unpin IMAGES, so that they can be evicted like others.  A name as "pins" lists it is understood, too.

    Exit status: 0, or 1 when one of them was not pinned.
    """
    settings = context.settings
    unwanted = [(_pin(image, settings), _listed_pin(image, settings)) for image in images]
    _, root = open_for_change(context)
    removed, missing = list[str](), list[str]()
    for spellings in unwanted:
        pinned = next((each for each in spellings if remove_pin(root, each)), None)
        (missing if pinned is None else removed).append(str(pinned or spellings[0]))
    if as_json:
        print_json({"unpinned": removed})
    else:
        for image in removed:
            click.echo(f"{image} is not pinned any more")
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
    pinned = list(iter_pins(open_store(settings)))
    if as_json:
        print_json(
            [
                {
                    "image": str(each),
                    "platforms": [str(platform) for platform in each.platforms],
                    "refreshed": format_timestamp(refreshed) if refreshed else None,
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


def _listed_pin(image: str, settings: Settings) -> Pin:
    """Return the pin of that name, which may be older than the rewriting of names."""
    name = parse_client_name(image, settings)
    return Pin(name.repository, name.reference)
