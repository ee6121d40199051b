"""``dockmirror rm``: images forgotten."""

from __future__ import annotations

from pathlib import Path

import click

from ..app.naming import parse_image_name
from ..config.settings import Settings
from ..oci.digest import Digest
from ..oci.errors import DigestInvalid
from ..oci.reference import Tag
from ..store.eviction.budget import wait_for_usage_counter
from ..store.eviction.delete_image import (
    DeletionPlan,
    delete_image,
    plan_manifest_deletion,
    plan_tag_deletion,
)
from ..store.held_images import HeldImages
from ..store.pins import Pin, iter_pins
from .context import Context
from .output import size
from .store_access import store_of


@click.command("rm", short_help="Images forgotten: the next pull fetches them anew.")
@click.option("-y", "--yes", is_flag=True, help="Without asking.")
@click.argument("images", nargs=-1, required=True)
@click.pass_obj
def rm(context: Context, yes: bool, images: tuple[str, ...]) -> None:
    """Forgets IMAGES, so that the next pull fetches them anew.

    A tag goes, and where nothing else names its manifest that goes, too, with all that only it needs.
    "NAME@DIGEST" goes with its tags, a DIGEST alone from every repository.  Who reads a blob meanwhile
    reads it to its end.  A mirror that runs sees at once that the image is gone.  What is pinned is fetched
    again; "unpin" it first.

    Exit status: 0; 1 where one of them is not held, of which nothing goes then, or when you say no.
    """
    settings = context.settings
    root = store_of(settings)
    for image in images:
        found = _found(settings, root, image)
        if not found:
            raise click.ClickException(f"{image} is not held")
        for each in found:
            click.echo(f"{each.repository}: {_told(each)}")
        for pin in _pinned(root, found):
            click.echo(f"{pin} is pinned, and will be fetched again")
    if not yes:
        click.confirm("forget this?", abort=True)
    with wait_for_usage_counter(root) as figures:
        freed = sum(delete_image(root, each) for image in images for each in _found(settings, root, image))
        figures.add(-freed)
    click.echo(f"{size(freed)} freed")


def _found(settings: Settings, root: Path, image: str) -> list[DeletionPlan]:
    """As things are now: one of several may have gone with another."""
    digest = _bare(image)
    if digest is not None:
        places = HeldImages(root).list_repositories()
        return [each for place in places if (each := plan_manifest_deletion(root, place, digest))]
    try:
        name = parse_image_name(image, settings)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    place, reference = name.repository, name.reference
    found = (
        plan_tag_deletion(root, place, reference)
        if isinstance(reference, Tag)
        else plan_manifest_deletion(root, place, reference)
    )
    return [found] if found else []


def _pinned(root: Path, going: list[DeletionPlan]) -> list[Pin]:
    named = {(each.repository, reference) for each in going for reference in (*each.tags, *each.contents)}
    return [pin for pin, _ in iter_pins(root) if (pin.repository, pin.reference) in named]


def _bare(image: str) -> Digest | None:
    try:
        return Digest.parse(image)
    except DigestInvalid:
        return None


def _told(going: DeletionPlan) -> str:
    tags = [f"the tag {tag}" for tag in going.tags]
    return ", ".join([*tags, *([f"{len(going.contents)} manifests and blobs"] if going.contents else [])])
