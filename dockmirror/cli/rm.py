"""``dockmirror rm``: images forgotten."""

from __future__ import annotations

from pathlib import Path

import click

from ..oci.digest import Digest
from ..oci.errors import DigestInvalid
from ..oci.reference import Tag
from ..store.eviction.forgetting import Forgetting, forget, of_manifest, of_tag
from ..store.holdings import Holdings
from .context import Context
from .names import in_store, parse_name
from .opening import store_of
from .printed import size


@click.command("rm")
@click.option("-y", "--yes", is_flag=True, help="Without asking.")
@click.argument("images", nargs=-1, required=True)
@click.pass_obj
def rm(context: Context, yes: bool, images: tuple[str, ...]) -> None:
    """Forgets IMAGES, so that the next pull fetches them anew.

    A tag goes, and where nothing else names its manifest that goes, too, with all that only it needs.
    "NAME@DIGEST" goes with its tags, a DIGEST alone from every repository.  Who reads a blob meanwhile
    reads it to its end.  A mirror that runs may serve manifests and small blobs by their digests from its
    memory for a minute.

    Exit status: 0; 1 where one of them is not held, of which nothing goes then, or when you say no.
    """
    root = store_of(context)
    going = [each for image in images for each in _found(context, root, image)]
    for each in going:
        click.echo(f"{each.repository}: {_told(each)}")
    if not yes:
        click.confirm("forget this?", abort=True)
    click.echo(f"{size(sum(forget(root, each) for each in going))} freed")


def _found(context: Context, root: Path, image: str) -> list[Forgetting]:
    digest = _bare(image)
    if digest is not None:
        places = Holdings(root).repositories()
        found = [each for place in places if (each := of_manifest(root, place, digest))]
    else:
        try:
            name = parse_name(image, context.settings)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        image = in_store(name.repository, name.reference)
        if isinstance(name.reference, Tag):
            found = [each for each in [of_tag(root, name.repository, name.reference)] if each]
        else:
            found = [each for each in [of_manifest(root, name.repository, name.reference)] if each]
    if not found:
        raise click.ClickException(f"{image} is not held")
    return found


def _bare(image: str) -> Digest | None:
    try:
        return Digest.parse(image)
    except DigestInvalid:
        return None


def _told(going: Forgetting) -> str:
    tags = [f"the tag {tag}" for tag in going.tags]
    return ", ".join([*tags, *([f"{len(going.contents)} manifests and blobs"] if going.contents else [])])
