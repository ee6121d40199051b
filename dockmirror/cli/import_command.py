"""``dockmirror import``: archives taken into the store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import BinaryIO

import click
from attrs import frozen

from ..app.cache import make_budget
from ..app.naming import ImageName, parse_image_name, registry_names
from ..app.stack import cache_partition
from ..archive.archive_files import ArchiveRefused
from ..archive.image_archive import ImageArchive, NamedImage
from ..config.settings import Settings
from ..interfaces import ContentKind
from ..oci.digest import Digest
from ..oci.reference import Repository, Tag
from ..pullthrough.generations import deletion_document
from ..pullthrough.grants import imported_document
from ..store import atomic_file, files, layout, offline_writer
from ..store.data_files import is_stored
from ..store.eviction.budget import wait_for_usage_counter
from ..store.eviction.sweep import Sweep
from .context import Context
from .output import progress
from .store_access import store_of


@frozen
class _PlannedImport:
    """What is to be taken, and as what."""

    archive: ImageArchive
    image: NamedImage
    name: ImageName


@click.command("import", short_help="Archives of images taken into the cache.")
@click.option("--as", "named", metavar="NAME", help="The name, where the archive has one image.")
@click.argument("files", nargs=-1, required=True, type=click.File("rb"))
@click.pass_obj
def import_(context: Context, named: str | None, files: tuple[BinaryIO, ...]) -> None:
    """Takes the images in FILES into the store, so that they can be pulled here without their registry.

    They may come from dockmirror export, docker save, podman save and skopeo's oci-archive:, and may not be
    compressed.  All that is read is verified.  What you import is everybody's who may use the mirror, while
    its registry cannot be asked; while it can, that says who may have it.

    Exit status: 0; 1 where an archive is refused, of which no image can be pulled then.
    """
    settings = context.settings
    root = store_of(settings)
    try:
        taken = [each for file in files for each in _read(file, named, settings)]
        if named and len(taken) != 1:
            raise ArchiveRefused(f"--as names one image, and there are {len(taken)}")
        done: set[Digest] = set()
        for each in taken:
            added = _take(root, each, settings, done)
            click.echo(f"imported {each.name}")
            with wait_for_usage_counter(root) as figures:
                figures.add(added)
            Sweep(root, make_budget(root, settings)).run(0, time.time())
    except (ArchiveRefused, OSError) as error:
        raise click.ClickException(str(error)) from None


def _read(file: BinaryIO, named: str | None, settings: Settings) -> list[_PlannedImport]:
    try:
        archive = ImageArchive.open(file)
        return [_PlannedImport(archive, image, _name(image, named, settings)) for image in archive.images()]
    except ArchiveRefused as error:
        raise ArchiveRefused(f"{file.name}: {error}") from None


def _name(image: NamedImage, named: str | None, settings: Settings) -> ImageName:
    text = named or image.name
    if text is None:
        raise ArchiveRefused(f"{image.descriptor.digest} has no name in the archive: say --as NAME")
    try:
        name = parse_image_name(text, settings)
    except ValueError as error:
        if named:
            raise click.UsageError(str(error)) from None
        raise ArchiveRefused(str(error)) from None
    registries = [registry_names(upstream)[0] for upstream in settings.upstreams.values()]
    if name.repository.first not in registries:
        raise ArchiveRefused(
            f"{name}: {name.repository.first} is not mirrored here, so nobody could pull it: say --as NAME,"
            " with one of a registry that is"
        )
    return name


def _take(root: Path, taken: _PlannedImport, settings: Settings, done: set[Digest]) -> int:
    """Return how many bytes that has added.  Nothing is linked before all is there; the tag comes last.

    :param done: what was taken before, for another name, and is not read again while it is held.
    """
    added = 0
    parts = list(taken.archive.parts(taken.image.descriptor))
    with progress(f"importing {taken.name}") as bar:
        task = bar.add_task("", total=sum(taken.archive.size(part) for part, _ in parts))
        for part, data in parts:
            if part.digest is None:
                continue
            if part.digest in done and is_stored(root / layout.data(part.digest), part.digest):
                bar.advance(task, taken.archive.size(part))
                continue
            pieces = taken.archive.pieces(part) if data is None else iter([data])
            added += offline_writer.add_content(
                root, part.digest, _told(pieces, lambda count: bar.advance(task, count))
            )
            done.add(part.digest)
    place, now = taken.name.repository, time.time()
    for part, data in parts:
        if part.digest is not None:
            kind = ContentKind.BLOB if data is None else ContentKind.MANIFEST
            files.remove(root / layout.document(deletion_document(place, part.digest, kind)))
            offline_writer.link_content(root, place, part.digest, kind, now)
    _say_everybodys(root, place, [part.digest for part, _ in parts], settings, now)
    if isinstance(taken.name.reference, Tag) and taken.image.descriptor.digest is not None:
        offline_writer.set_tag(root, place, taken.name.reference, taken.image.descriptor.digest, now)
    return added


def _say_everybodys(
    root: Path, place: Repository, digests: Iterable[Digest | None], settings: Settings, now: float
) -> None:
    """Each content, and that there are any: what else the repository has stays whose it is."""
    entries = [
        cache_partition(label, upstream)
        for label, upstream in settings.upstreams.items()
        if registry_names(upstream)[0] == place.first
    ]
    for entry, digest in product(entries, dict.fromkeys([*digests, None])):
        path = layout.document(imported_document(entry, Repository(place.rest), digest))
        atomic_file.replace_file(root / path, str(now).encode(), root / layout.TEMPORARY, now)


def _told(pieces: Iterable[bytes], told: Callable[[int], None]) -> Iterator[bytes]:
    for piece in pieces:
        yield piece
        told(len(piece))
