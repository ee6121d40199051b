"""``dockmirror rm``: delete images from the cache."""

from __future__ import annotations

from pathlib import Path

import click

from ..config.settings import Settings
from ..oci.digest import Digest
from ..oci.errors import DigestInvalid
from ..oci.reference import Tag
from ..store.eviction.budget import wait_for_usage_counter
from ..store.eviction.removal import DeletionPlan, delete_image, plan_manifest_deletion, plan_tag_deletion
from ..store.held_images import HeldImages
from ..store.pins import Pin, iter_pins
from .context import Context, open_store, parse_image
from .output import format_size


@click.command("rm", short_help="Delete images from the cache.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
@click.argument("images", nargs=-1, required=True)
@click.pass_obj
def rm(context: Context, yes: bool, images: tuple[str, ...]) -> None:
    """Delete IMAGES from the cache, so that the next pull fetches them again.

    A tag is deleted with its manifest, unless something else refers to that, and with everything that only
    this manifest needs.  "NAME@DIGEST" is deleted with its tags, a DIGEST alone from every repository.
    Clients that are reading a blob receive all of it.  A running mirror notices the deletion at once.  Pinned
    images are fetched again; "unpin" them first.

    Exit status: 0; 1 when one of them is not in the cache, and nothing is deleted then, or when you answer
    no.
    """
    settings = context.settings
    root = open_store(settings)
    for image in images:
        plans = _plan_deletions(settings, root, image)
        if not plans:
            raise click.ClickException(f"{image} is not in the cache")
        for each in plans:
            click.echo(f"{each.repository}: {_describe(each)}")
        for pin in _find_pinned(root, plans):
            click.echo(f"{pin} is pinned and will be fetched again")
    if not yes:
        click.confirm("Delete these?", abort=True)
    with wait_for_usage_counter(root) as usage:
        freed = sum(
            delete_image(root, each) for image in images for each in _plan_deletions(settings, root, image)
        )
        usage.add(-freed)
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


def _describe(plan: DeletionPlan) -> str:
    tags = [f"the tag {tag}" for tag in plan.tags]
    return ", ".join([*tags, *([f"{len(plan.contents)} manifests and blobs"] if plan.contents else [])])
