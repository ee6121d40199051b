"""``dockmirror export``: images as an archive."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import click

from ..app.naming import ImageName, parse_image_name
from ..archive.archive_plan import ArchivePlan
from ..archive.images import PackedImage, archive_of
from ..archive.read_archive import ArchiveContentError, read
from ..oci.digest import Digest
from ..oci.platform import Platform
from ..oci.reference import Tag
from ..store import layout
from ..store.held_images import HeldImages, StoredImage
from .context import Context
from .output import progress
from .platforms import PlatformType
from .store_access import find_store


@click.command("export", short_help="Images as an archive that docker, podman and skopeo load.")
@click.option(
    "-o", "--output", required=True, type=click.Path(dir_okay=False, allow_dash=True),
    help="The archive; '-' writes to standard output.",
)  # fmt: skip
@click.option("--platform", type=PlatformType(), help="Of an image for several platforms only this one.")
@click.argument("images", nargs=-1, required=True)
@click.pass_obj
def export(context: Context, output: str, platform: Platform | None, images: tuple[str, ...]) -> None:
    """Writes IMAGES to an archive that docker load, podman load, ctr image import and skopeo take.

    It is an OCI image layout in a tar file, with the manifest.json of docker save in it.  The same images
    give the same bytes.  Nothing is fetched: only what is held whole can be exported.

    Exit status: 0; 1 where something is not held, or not right, and there is no archive then.
    """
    settings = context.settings
    root = find_store(settings)
    try:
        names = list(dict.fromkeys(parse_image_name(image, settings) for image in images))
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    holdings = HeldImages(root)
    plan = archive_of([pack(holdings, name, platform) for name in names])
    try:
        if output == "-":
            _write(plan, root, sys.stdout.buffer)
        else:
            _write_file(plan, root, Path(output))
    except ArchiveContentError as error:
        raise click.ClickException(f"{output}: {error}") from None
    except OSError as error:
        where = error.filename if Path(error.filename or "").is_relative_to(root) else output
        raise click.ClickException(f"{where}: {error.strerror}") from None


def pack(holdings: HeldImages, name: ImageName, platform: Platform | None) -> PackedImage:
    """An image that is held whole.

    :raises click.ClickException: when it is not.
    """
    digest = name.reference
    if isinstance(digest, Tag):
        tagged = holdings.list_tags(name.repository).get(digest)
        if tagged is None:
            raise click.ClickException(f"{name} is not held")
        digest = tagged.digest
    image = holdings.read_image(name.repository, digest)
    if image.data is None:
        raise click.ClickException(f"{name} is not held")
    chosen = _chosen(image, platform, name)
    _check_whole(chosen, name)
    manifests = {each.digest: each.data for each in chosen.walk() if each.data is not None}
    blobs = {d: stored.size for each in chosen.walk() for d, stored in each.blobs.items() if stored}
    tag = name.reference.name if isinstance(name.reference, Tag) else ""
    return PackedImage(str(name), tag, chosen.digest, manifests, blobs)


def _chosen(image: StoredImage, platform: Platform | None, name: ImageName) -> StoredImage:
    if platform is None or not image.children:
        return image
    fitting = [child for child in image.children if child.platform and platform.matches(child.platform)]
    if not fitting:
        there = ", ".join(str(c.platform) for c in image.children if c.platform and c.platform.is_real)
        raise click.ClickException(f"{name} is not made for {platform}, but for {there}")
    return min(fitting, key=lambda child: child.platform != platform)


def _check_whole(image: StoredImage, name: ImageName) -> None:
    missing = image.find_missing()
    if not missing:
        return
    whole = [
        str(c.platform) for c in image.children if c.platform and c.platform.is_real and not c.find_missing()
    ]
    hint = f"\nWhole is --platform {' or '.join(whole)}." if whole else ""
    listed = "\n".join(f"  {digest}" for digest in missing)
    raise click.ClickException(f"{name} is not held whole; missing are\n{listed}{hint}")


def _write_file(plan: ArchivePlan, root: Path, path: Path) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("xb") as file:
            _write(plan, root, file)
        beside.replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            beside.unlink()
        raise


def _write(plan: ArchivePlan, root: Path, file: BinaryIO) -> None:
    def opened(digest: Digest) -> BinaryIO:
        return (root / layout.data(digest)).open("rb")

    with progress("exporting") as bar:
        task = bar.add_task("", total=plan.size)
        _copy(read(plan, opened), file, lambda count: bar.advance(task, count))


def _copy(pieces: Iterable[bytes], file: BinaryIO, wrote: Callable[[int], None]) -> None:
    for piece in pieces:
        file.write(piece)
        wrote(len(piece))
    file.flush()
