"""``dockmirror export`` and ``import``: write images to archives, and read them from there."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import BinaryIO

import click
from attrs import frozen

from ..app.budget import make_budget
from ..app.local_admission import check_not_recalled, make_export_gate
from ..app.naming import ImageName, cache_partition, parse_image_name, registry_names
from ..archive.archive_files import ArchiveRefused
from ..archive.archive_plan import ArchiveContentError, ArchivePlan, plan_archive, read_archive
from ..archive.image_archive import ImageArchive, NamedImage
from ..config.settings import Settings
from ..interfaces import ContentKind
from ..oci.digest import Digest
from ..oci.errors import Denied
from ..oci.manifest import Platform
from ..oci.reference import Repository, Tag
from ..pullthrough.generations import tombstone_document
from ..pullthrough.grants import imported_document
from ..store import content_files, files, layout
from ..store.content_files import is_stored
from ..store.eviction.eviction import Sweep
from ..store.eviction.store_budget import wait_for_usage_counter
from ..store.held_images import HeldImages
from ..store.packed_images import ImageNotHeld, open_contents, pack_image
from .arguments import PlatformType, complete_image, json_option
from .command_context import Context, find_store, open_for_change, parse_image
from .output import print_json, print_note, progress_bars


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
    always give the same bytes.  Nothing is fetched: the cache has to hold the images completely.  A tag is
    the digest that the cool-down of its policy admits.

    Exit status: 0; 1 when something is missing or corrupt, and no archive is written.
    """
    if as_json and output == "-":
        raise click.UsageError("--json needs a file: with '-o -' the archive is on standard output")
    settings = context.settings
    root = find_store(settings)
    names = list(dict.fromkeys(parse_image(image, settings) for image in images))
    held_images = HeldImages(root)
    try:
        packed = [
            pack_image(
                held_images, str(name), name.repository, name.reference, platform,
                make_export_gate(settings, root, time.time(), name, print_note),
            )
            for name in names
        ]  # fmt: skip
    except (ImageNotHeld, Denied) as error:
        raise click.ClickException(str(error)) from None
    plan = plan_archive(packed)
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
    with progress_bars("exporting") as bar:
        task = bar.add_task("", total=plan.size)
        pieces = read_archive(plan, open_contents(root))
        for piece in _report_progress(pieces, lambda count: bar.advance(task, count)):
            file.write(piece)
        file.flush()


@frozen
class _PlannedImport:
    """An image in an archive, and the name that it gets in the store."""

    archive: ImageArchive
    image: NamedImage
    name: ImageName


@click.command("import", short_help="Import images from archives into the cache.")
@json_option
@click.option("--as", "named", metavar="NAME", help="Name of the image, for an archive with one image.")
@click.argument("files", nargs=-1, required=True, type=click.File("rb"))
@click.pass_obj
def import_(context: Context, as_json: bool, named: str | None, files: tuple[BinaryIO, ...]) -> None:
    """Import the images in FILES into the cache, so that clients can pull them without their registry.

    FILES may come from dockmirror export, docker save, podman save and skopeo's oci-archive:, uncompressed.
    Everything is verified.  While the images' registry is down, every client of the mirror may pull what you
    import; while it is up, the registry decides who may pull it.

    Exit status: 0; 1 when an archive is refused, and none of its images can be pulled then.
    """
    settings, root = open_for_change(context)
    try:
        planned = [each for file in files for each in _read(file, named, settings)]
        if named and len(planned) != 1:
            raise ArchiveRefused(f"--as names one image, but the archives hold {len(planned)}")
        done: set[Digest] = set()
        for each in planned:
            added = _import_image(root, each, settings, done)
            if not as_json:
                click.echo(f"imported {each.name}")
            with wait_for_usage_counter(root) as usage:
                usage.add(added)
            Sweep(root, make_budget(root, settings)).run(0, time.time())
    except (ArchiveRefused, OSError) as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        print_json({"imported": [str(each.name) for each in planned]})


def _read(file: BinaryIO, named: str | None, settings: Settings) -> list[_PlannedImport]:
    try:
        archive = ImageArchive.open(file)
        return [
            _PlannedImport(archive, image, _name_image(image, named, settings)) for image in archive.images()
        ]
    except ArchiveRefused as error:
        raise ArchiveRefused(f"{file.name}: {error}") from None


def _name_image(image: NamedImage, named: str | None, settings: Settings) -> ImageName:
    text = named or image.name
    if text is None:
        raise ArchiveRefused(f"{image.descriptor.digest} has no name in the archive: give one with --as NAME")
    try:
        name = parse_image_name(text, settings)
    except ValueError as error:
        if named:
            raise click.UsageError(str(error)) from None
        raise ArchiveRefused(str(error)) from None
    registries = [registry_names(upstream)[0] for upstream in settings.upstreams.values()]
    if name.repository.first not in registries:
        raise ArchiveRefused(
            f"{name}: this mirror has no registry {name.repository.first}, so no client could pull it: give"
            " a name in a mirrored registry with --as NAME"
        )
    return name


def _import_image(root: Path, planned: _PlannedImport, settings: Settings, done: set[Digest]) -> int:
    """Import one image and return the number of bytes added.

    Contents are linked when all of them are stored, and the tag is set last.

    :param done: contents that were stored for another name, and are not read again.
    """
    added = 0
    parts = list(planned.archive.parts(planned.image.descriptor))
    try:
        check_not_recalled(root, planned.name, [part.digest for part, _ in parts if part.digest])
    except Denied as error:
        raise click.ClickException(str(error)) from None
    with progress_bars(f"importing {planned.name}") as bar:
        task = bar.add_task("", total=sum(planned.archive.size(part) for part, _ in parts))
        for part, data in parts:
            if part.digest is None:
                continue
            if part.digest in done and is_stored(root / layout.data(part.digest), part.digest):
                bar.advance(task, planned.archive.size(part))
                continue
            pieces = planned.archive.pieces(part) if data is None else iter([data])
            added += content_files.add_content(
                root, part.digest, _report_progress(pieces, lambda count: bar.advance(task, count))
            )
            done.add(part.digest)
    repository, now = planned.name.repository, time.time()
    for part, data in parts:
        if part.digest is not None:
            kind = ContentKind.BLOB if data is None else ContentKind.MANIFEST
            files.remove(root / layout.document(tombstone_document(repository, part.digest, kind)))
            content_files.link_content(root, repository, part.digest, kind, now)
    _mark_public(root, repository, [part.digest for part, _ in parts], settings, now)
    if isinstance(planned.name.reference, Tag) and planned.image.descriptor.digest is not None:
        content_files.set_tag(root, repository, planned.name.reference, planned.image.descriptor.digest, now)
    return added


def _mark_public(
    root: Path, repository: Repository, digests: Iterable[Digest | None], settings: Settings, now: float
) -> None:
    """Mark the imported contents as public, and the repository as one that has such contents.

    The access to other contents of the repository does not change.
    """
    entries = [
        cache_partition(label, upstream)
        for label, upstream in settings.upstreams.items()
        if registry_names(upstream)[0] == repository.first
    ]
    for entry, digest in product(entries, dict.fromkeys([*digests, None])):
        path = layout.document(imported_document(entry, Repository(repository.rest), digest))
        files.replace_file(root / path, str(now).encode(), root / layout.TEMPORARY, now)


def _report_progress(pieces: Iterable[bytes], report: Callable[[int], None]) -> Iterator[bytes]:
    for piece in pieces:
        yield piece
        report(len(piece))
