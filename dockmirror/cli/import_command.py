"""``dockmirror import``: read images from archives into the cache."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click
from attrs import evolve, frozen

from ..admission.recalls import read_recalls
from ..app.cache_settings import make_budget, make_retention
from ..app.local_admission import check_not_recalled
from ..app.naming import ImageName, mirrored_registries, parse_image_name
from ..archive.archive_files import ArchiveRefused, read_pieces
from ..archive.archive_parts import (
    CHECKSUM_SUFFIXES,
    ChecksumFiles,
    OpenTemporary,
    check_sum,
    group_parts,
    open_seekable,
    part_advice,
)
from ..archive.image_archive import ImageArchive, NamedImage
from ..config.notation import format_size
from ..config.settings import Settings
from ..oci.digest import Digest
from ..oci.errors import Denied
from ..store import layout
from ..store.eviction.eviction import Sweep
from ..store.eviction.store_budget import read_store_usage
from .arguments import json_option
from .command_context import Context, open_for_change, print_json, print_note
from .image_import import (
    AddedContents,
    ImportedImage,
    PlannedImport,
    add_contents,
    add_histories,
    check_assumed,
    check_room,
    publish_images,
    read_histories,
)

if TYPE_CHECKING:
    from ..admission.signatures import PublicKey

_STDIN = "-"


@frozen
class _GivenArchive:
    """The open files of one archive, or a directory.

    :ivar name: the name for messages.
    :ivar advice: ends the message when it is refused.
    :ivar sums: the checksums of its files that the trusted key has signed; None if there is no such key.
    """

    name: str
    files: Sequence[BinaryIO] = ()
    directory: Path | None = None
    advice: str = ""
    sums: Mapping[str, str] | None = None

    def open(self, open_temporary: OpenTemporary) -> ImageArchive:
        """:raises ArchiveRefused: when it is none."""
        try:
            if self.directory is None:
                return ImageArchive.open(open_seekable(self.files, open_temporary))
            if self.sums is None:
                return ImageArchive.open_directory(self.directory)
            return ImageArchive.open_signed_directory(self.directory, self.sums)
        except ArchiveRefused as error:
            raise self.refuse(error) from None

    def refuse(self, error: ArchiveRefused) -> ArchiveRefused:
        """Return the error with the archive's name."""
        return ArchiveRefused(f"{self.name}: {error}{self.advice}")


@click.command("import", short_help="Import images from archives into the cache.")
@json_option
@click.option("--as", "named", metavar="NAME", help="Name of the image, for an archive with one image.")
@click.option(
    "--key", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Accept only archives whose checksums are signed with this public key, in PEM.",
)  # fmt: skip
@click.argument(
    "paths", nargs=-1, required=True, type=click.Path(exists=True, allow_dash=True, path_type=Path)
)
@click.pass_obj
def import_(
    context: Context, as_json: bool, named: str | None, key: Path | None, paths: tuple[Path, ...]
) -> None:
    """Import the images in PATHS into the cache, so that clients can pull them without their registry.

    PATHS are archives of dockmirror export, docker save, podman save and skopeo's oci-archive:, also
    compressed with gzip or zstd, or OCI layout directories; '-' is standard input.  Name all parts of an
    archive that has several, as in archive.tar.*; checksums are found by their names.  No image can be pulled
    before everything is verified.  If an import is interrupted, run it again: it continues where it stopped.

    While the images' registry is down or offline, every client of the mirror may pull what you import; while
    it is up, the registry decides who may pull it.

    Exit status: 0; 1 when an archive is refused, and none of its images can be pulled then.
    """
    with ExitStack() as stack:
        try:
            given = _open_all(paths, key, stack)
            settings, root = open_for_change(context)

            def open_temporary() -> BinaryIO:
                return stack.enter_context(tempfile.TemporaryFile(dir=root / layout.TEMPORARY))

            planned = [
                each
                for one in given
                for each in _plan(one.name, one.open(open_temporary), root, named, settings)
            ]
            if named and len(planned) != 1:
                raise ArchiveRefused(f"--as names one image, but the archives hold {len(planned)}")
            sweep = Sweep(root, make_budget(root, settings), make_retention(settings))
            sweep.run(0, time.time())  # counts the store, if nobody has
            if usage := read_store_usage(root):
                check_room(root, planned, sweep.budget, usage.size, shutil.disk_usage(root).free)
            histories = read_histories(planned) if key is not None and named is None else {}
            added = add_contents(root, planned)
            changes = publish_images(root, planned, settings)
            add_histories(root, histories, settings)
            sweep.run(0, time.time())
        except (ArchiveRefused, Denied) as error:
            raise click.ClickException(str(error)) from None
        except OSError as error:
            where = error.filename or context.settings.cache
            raise click.ClickException(f"{where}: {error.strerror}") from None
    _report(changes, added, as_json)


def _report(changes: Sequence[ImportedImage], added: AddedContents, as_json: bool) -> None:
    if as_json:
        sums = {"added": added.contents, "added_bytes": added.bytes, "held": added.held}
        print_json(
            {
                "imported": [each.image for each in changes],
                **sums,
                "changes": [each.fields() for each in changes],
            }
        )
        return
    for line in map(str, changes) if changes else ["nothing is new"]:
        click.echo(line)
    click.echo(
        f"{added.contents} contents added ({format_size(added.bytes)}), {added.held} were there", err=True
    )


def _open_all(paths: Sequence[Path], key: Path | None, stack: ExitStack) -> list[_GivenArchive]:
    """Open everything that root's rights may be needed for, and check the signatures.

    :raises ArchiveRefused: when a signature or a checksum is wrong.
    """
    trusted = _load_key(key) if key else None
    found, groups = [], group_parts(paths)
    for path in sorted(set(paths).difference(*groups)):
        if not path.name.endswith(CHECKSUM_SUFFIXES):
            print_note(
                f"left out: {path} is a part of another archive: the checksums beside it do not list it"
            )
    for group in groups:
        if group[0].is_dir():
            given = _GivenArchive(str(group[0]), directory=group[0].absolute())
        elif str(group[0]) == _STDIN:
            given = _GivenArchive(_STDIN, [sys.stdin.buffer])
        else:
            files = [stack.enter_context(each.open("rb")) for each in group]
            given = _GivenArchive(str(group[0]), files, advice=part_advice(group))
        if trusted is not None:
            try:
                given = evolve(given, sums=_check_signed(given, group, trusted))
            except ArchiveRefused as error:
                raise given.refuse(error) from None
        found.append(given)
    return found


def _load_key(path: Path) -> PublicKey:
    from ..admission.signatures import PublicKey

    try:
        return PublicKey.parse(path.name, path.read_bytes())
    except ValueError:
        raise click.UsageError(
            f"--key: expected a public key of RSA, ECDSA or Ed25519 in PEM in {path}"
        ) from None


def _check_signed(given: _GivenArchive, paths: Sequence[Path], key: PublicKey) -> Mapping[str, str]:
    """Check the signature of an archive's checksums, and the checksums of its files; return the checksums.

    The files of a directory are checked when it is opened.

    :raises ArchiveRefused: when a check fails, or there is no signature.
    """
    if given.name == _STDIN:
        raise ArchiveRefused("--key needs files: standard input has no signature")
    if given.directory is not None:
        return ChecksumFiles.of_directory(given.directory).read(key.has_signed)
    whole = paths[0].with_suffix("") if len(paths) > 1 or paths[0].suffix == ".001" else paths[0]
    sums = ChecksumFiles.of_archive(whole).read(key.has_signed)
    for path, file in zip(paths, given.files, strict=True):
        check_sum(path.name, read_pieces(file), sums)
    return sums


def _plan(
    given: str, archive: ImageArchive, root: Path, named: str | None, settings: Settings
) -> Iterator[PlannedImport]:
    """Read the manifests of an archive.

    :param given: its name for messages.
    :raises ArchiveRefused: when a content is missing, or an image has no usable name.
    :raises Denied: when a content was recalled.
    """
    recalls = read_recalls(root)
    try:
        for image in archive.images():
            name, parts = _name_image(image, named, settings), list(archive.parts(image.descriptor))
            planned = PlannedImport(archive, image, name, parts)
            check_not_recalled(recalls, name, planned.digests)
            check_assumed(root, planned)
            yield planned
    except ArchiveRefused as error:
        raise ArchiveRefused(f"{given}: {error}") from None


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
    if isinstance(name.reference, Digest) and name.reference != image.descriptor.digest:
        raise ArchiveRefused(
            f"{name}: the digest of this image is {image.descriptor.digest}: give a name with that digest, or"
            " with a tag, with --as NAME"
        )
    if name.repository.first not in mirrored_registries(settings):
        raise ArchiveRefused(
            f"{name}: this mirror has no registry {name.repository.first}, so no client could pull it: give"
            " a name in a mirrored registry with --as NAME"
        )
    return name
