"""``dockmirror export``: write images to an archive."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import click

from ..app.naming import ImageName
from ..archive.archive_plan import ArchiveContentError, ArchivePlan, PackedImage, plan_archive, read_archive
from ..oci.digest import Digest
from ..oci.manifest import Platform
from ..oci.reference import Tag
from ..store import layout
from ..store.held_images import HeldImages, StoredImage
from .context import Context, find_store, parse_image
from .image_completion import complete_image
from .options import PlatformType, json_option
from .output import print_json, progress_bars


@click.command("export", short_help="Write images to an archive that docker, podman and skopeo read.")
@json_option
@click.option(
    "-o", "--output", required=True, type=click.Path(dir_okay=False, allow_dash=True),
    help="File to write; '-' is standard output.",
)  # fmt: skip
@click.option("--platform", type=PlatformType(), help="Only this platform of a multi-platform image.")
@click.argument("images", nargs=-1, required=True, shell_complete=complete_image)
@click.pass_obj
def export(
    context: Context, as_json: bool, output: str, platform: Platform | None, images: tuple[str, ...]
) -> None:
    """Write IMAGES to an archive that docker load, podman load, ctr image import and skopeo read.

    The archive is an OCI image layout in a tar file, with the manifest.json of docker save.  The same images
    always give the same bytes.  Nothing is fetched: the cache has to hold the images completely.

    Exit status: 0; 1 when something is missing or corrupt, and no archive is written.
    """
    if as_json and output == "-":
        raise click.UsageError("--json needs a file: with '-o -' the archive is on standard output")
    settings = context.settings
    root = find_store(settings)
    names = list(dict.fromkeys(parse_image(image, settings) for image in images))
    held_images = HeldImages(root)
    plan = plan_archive([pack_image(held_images, name, platform) for name in names])
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
    if as_json:
        print_json({"output": output, "size": plan.size, "images": list(map(str, names))})


def pack_image(held_images: HeldImages, name: ImageName, platform: Platform | None) -> PackedImage:
    """Return an image that the store holds completely.

    :raises click.ClickException: when it does not.
    """
    digest = name.reference
    if isinstance(digest, Tag):
        tagged = held_images.list_tags(name.repository).get(digest)
        if tagged is None:
            raise click.ClickException(f"{name} is not in the cache")
        digest = tagged.digest
    image = held_images.read_image(name.repository, digest)
    if image.data is None:
        raise click.ClickException(f"{name} is not in the cache")
    selected = _select_platform(image, platform, name)
    _check_complete(selected, name)
    manifests = {each.digest: each.data for each in selected.walk() if each.data is not None}
    blobs = {d: stored.size for each in selected.walk() for d, stored in each.blobs.items() if stored}
    tag = name.reference.name if isinstance(name.reference, Tag) else ""
    return PackedImage(str(name), tag, selected.digest, manifests, blobs)


def _select_platform(image: StoredImage, platform: Platform | None, name: ImageName) -> StoredImage:
    if platform is None or not image.children:
        return image
    matching = [child for child in image.children if child.platform and platform.matches(child.platform)]
    if not matching:
        available = ", ".join(str(c.platform) for c in image.children if c.platform and c.platform.is_real)
        raise click.ClickException(f"{name} has no platform {platform} in the cache; it has {available}")
    return min(matching, key=lambda child: child.platform != platform)


def _check_complete(image: StoredImage, name: ImageName) -> None:
    missing = image.find_missing()
    if not missing:
        return
    complete = [
        str(c.platform) for c in image.children if c.platform and c.platform.is_real and not c.find_missing()
    ]
    hint = f"\nComplete: --platform {' or '.join(complete)}." if complete else ""
    digests = "\n".join(f"  {digest}" for digest in missing)
    raise click.ClickException(f"{name} is incomplete in the cache; missing:\n{digests}{hint}")


def _write_file(plan: ArchivePlan, root: Path, path: Path) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("xb") as file:
            _write(plan, root, file)
        temporary.replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise


def _write(plan: ArchivePlan, root: Path, file: BinaryIO) -> None:
    def open_content(digest: Digest) -> BinaryIO:
        return (root / layout.data(digest)).open("rb")

    with progress_bars("exporting") as bar:
        task = bar.add_task("", total=plan.size)
        _copy(read_archive(plan, open_content), file, lambda count: bar.advance(task, count))


def _copy(pieces: Iterable[bytes], file: BinaryIO, report: Callable[[int], None]) -> None:
    for piece in pieces:
        file.write(piece)
        report(len(piece))
    file.flush()
