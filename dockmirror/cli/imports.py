"""``dockmirror import``: archives taken into the store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import BinaryIO

import click
from attrs import frozen

from ..archive.members import Refused
from ..archive.opened import Archive, Named
from ..assembly.cache import budget
from ..assembly.image_names import Name, parse_name
from ..assembly.offered import registry_names
from ..assembly.stack import entry_of
from ..config.settings import Settings
from ..interfaces import Kind
from ..oci.digest import Digest
from ..oci.reference import Repository, Tag
from ..pullthrough.changes import deletion_document
from ..pullthrough.grants import imported_document
from ..store import adding, files, layout, small
from ..store.data import is_held
from ..store.eviction.figures import in_turn
from ..store.eviction.sweep import Sweep
from .context import Context
from .opening import store_of
from .printed import progress


@frozen
class _Taken:
    """What is to be taken, and as what."""

    archive: Archive
    image: Named
    name: Name


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
            raise Refused(f"--as names one image, and there are {len(taken)}")
        done: set[Digest] = set()
        for each in taken:
            added = _take(root, each, settings, done)
            click.echo(f"imported {each.name}")
            with in_turn(root) as figures:
                figures.add(added)
            Sweep(root, budget(root, settings)).look(0, time.time())
    except (Refused, OSError) as error:
        raise click.ClickException(str(error)) from None


def _read(file: BinaryIO, named: str | None, settings: Settings) -> list[_Taken]:
    try:
        archive = Archive.open(file)
        return [_Taken(archive, image, _name(image, named, settings)) for image in archive.images()]
    except Refused as error:
        raise Refused(f"{file.name}: {error}") from None


def _name(image: Named, named: str | None, settings: Settings) -> Name:
    text = named or image.name
    if text is None:
        raise Refused(f"{image.descriptor.digest} has no name in the archive: say --as NAME")
    try:
        name = parse_name(text, settings)
    except ValueError as error:
        if named:
            raise click.UsageError(str(error)) from None
        raise Refused(str(error)) from None
    registries = [registry_names(upstream)[0] for upstream in settings.upstreams.values()]
    if name.repository.first not in registries:
        raise Refused(
            f"{name}: {name.repository.first} is not mirrored here, so nobody could pull it: say --as NAME,"
            " with one of a registry that is"
        )
    return name


def _take(root: Path, taken: _Taken, settings: Settings, done: set[Digest]) -> int:
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
            if part.digest in done and is_held(root / layout.data(part.digest), part.digest):
                bar.advance(task, taken.archive.size(part))
                continue
            pieces = taken.archive.pieces(part) if data is None else iter([data])
            added += adding.add(root, part.digest, _told(pieces, lambda count: bar.advance(task, count)))
            done.add(part.digest)
    place, now = taken.name.repository, time.time()
    for part, data in parts:
        if part.digest is not None:
            kind = Kind.BLOB if data is None else Kind.MANIFEST
            files.remove(root / layout.document(deletion_document(place, part.digest, kind)))
            adding.link(root, place, part.digest, kind, now)
    _say_everybodys(root, place, [part.digest for part, _ in parts], settings, now)
    if isinstance(taken.name.reference, Tag) and taken.image.descriptor.digest is not None:
        adding.tag(root, place, taken.name.reference, taken.image.descriptor.digest, now)
    return added


def _say_everybodys(
    root: Path, place: Repository, digests: Iterable[Digest | None], settings: Settings, now: float
) -> None:
    """Each content, and that there are any: what else the repository has stays whose it is."""
    entries = [
        entry_of(label, upstream)
        for label, upstream in settings.upstreams.items()
        if registry_names(upstream)[0] == place.first
    ]
    for entry, digest in product(entries, dict.fromkeys([*digests, None])):
        path = layout.document(imported_document(entry, Repository(place.rest), digest))
        small.replace(root / path, str(now).encode(), root / layout.WRITING, now)


def _told(pieces: Iterable[bytes], told: Callable[[int], None]) -> Iterator[bytes]:
    for piece in pieces:
        yield piece
        told(len(piece))
