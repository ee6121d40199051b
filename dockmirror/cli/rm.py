"""``dockmirror rm``: delete images from the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..config.settings import Settings
from ..oci.digest import Digest
from ..oci.errors import DigestInvalid
from ..oci.reference import Tag
from ..store.eviction.budget import wait_for_usage_counter
from ..store.eviction.removal import DeletionPlan, delete_image, plan_manifest_deletion, plan_tag_deletion
from ..store.held_images import HeldImages
from ..store.pins import Pin, iter_pins
from .context import Context, open_for_change, parse_image
from .image_completion import complete_image
from .options import json_option
from .output import format_size, print_json


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
    planned = {image: _plan_deletions(settings, root, image) for image in images}
    if missing := [image for image, plans in planned.items() if not plans]:
        verb = "is" if len(missing) == 1 else "are"
        raise click.ClickException(f"{', '.join(missing)} {verb} not in the cache")
    all_plans = [each for plans in planned.values() for each in plans]
    for each in all_plans:
        click.echo(f"{each.repository}: {_describe(each)}", err=as_json)
    for pin in _find_pinned(root, all_plans):
        click.echo(f"{pin} is pinned and will be fetched again", err=as_json)
    if not yes:
        click.confirm("Delete these?", abort=True, err=as_json)
    with wait_for_usage_counter(root) as usage:
        freed = sum(
            delete_image(root, each) for image in images for each in _plan_deletions(settings, root, image)
        )
        usage.add(-freed)
    if as_json:
        print_json({"deleted": [_fields(each) for each in all_plans], "freed": freed})
    else:
        click.echo(f"freed {format_size(freed)}")


def _plan_deletions(settings: Settings, root: Path, image: str) -> list[DeletionPlan]:
    """Plan the deletion by the current state of the store: one image may have been deleted with another."""
    digest = _parse_digest(image)
    if digest is not None:
        repositories = HeldImages(root).list_repositories()
        return [
            each for repository in repositories if (each := plan_manifest_deletion(root, repository, digest))
        ]
    name = parse_image(image, settings)
    repository, reference = name.repository, name.reference
    plan = (
        plan_tag_deletion(root, repository, reference)
        if isinstance(reference, Tag)
        else plan_manifest_deletion(root, repository, reference)
    )
    return [plan] if plan else []


def _find_pinned(root: Path, plans: list[DeletionPlan]) -> list[Pin]:
    named = {(each.repository, reference) for each in plans for reference in (*each.tags, *each.contents)}
    return [pin for pin, _ in iter_pins(root) if (pin.repository, pin.reference) in named]


def _parse_digest(image: str) -> Digest | None:
    try:
        return Digest.parse(image)
    except DigestInvalid:
        return None


def _fields(plan: DeletionPlan) -> dict[str, Any]:
    """Return a deletion as JSON has it."""
    return {
        "repository": str(plan.repository),
        "tags": list(map(str, plan.tags)),
        "contents": list(map(str, plan.contents)),
    }


def _describe(plan: DeletionPlan) -> str:
    tags = [f"the tag {tag}" for tag in plan.tags]
    return ", ".join([*tags, *([f"{len(plan.contents)} manifests and blobs"] if plan.contents else [])])
