"""``dockmirror export``: write images to archives."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

import click
from attrs import evolve, frozen

from ..app.naming import ImageName, history_keys
from ..archive.archive_files import ArchiveRefused
from ..archive.archive_parts import ChecksumFiles, Sign, find_parts, group_parts, load_signer, open_seekable
from ..archive.archive_plan import (
    INVENTORY,
    ArchiveContentError,
    ArchivePlan,
    ContentSlice,
    Inventory,
    OpenContent,
    PackedImage,
    Piece,
    make_inventory,
    piece_size,
    plan_layout,
    plan_tar,
    read_archive,
    select_new,
)
from ..archive.image_archive import ImageArchive
from ..config.notation import format_size, parse_bytes
from ..config.settings import Settings
from ..oci.manifest import Platform
from ..oci.request import Repository, Tag
from ..store.packed_images import open_contents
from ..store.tag_history import TagHistoryFiles, TagRecord
from .arguments import PLATFORM, ParsedType, complete_image, json_option
from .command_context import Context, find_store, print_json, print_note, progress_bars, report_progress
from .export_selection import ExportSelection

_MOST_SIGHTINGS = 10
"""Sightings of a tag in a signed archive: an importer reads no list of more than 4 MiB."""
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def _parse_size(text: str) -> int:
    size = parse_bytes(text)
    if size < 1:
        raise ValueError("expected a number of bytes, such as 4GB")
    return size


_SIZE = ParsedType("size", _parse_size)


@frozen
class _Output:
    """The place and the form of an archive, by the names of the command's parameters."""

    output: str
    layout: bool
    max_size: int | None
    key: Path | None

    @property
    def path(self) -> Path:
        return Path(self.output)

    @property
    def is_stdout(self) -> bool:
        return self.output == "-"

    def check(self, as_json: bool) -> None:
        """:raises click.UsageError: when options exclude each other."""
        if self.is_stdout and as_json:
            raise click.UsageError("--json needs a file: with '-o -' the archive is on standard output")
        for option, given in (("--layout", self.layout), ("--max-size", self.max_size), ("--key", self.key)):
            if self.is_stdout and given:
                raise click.UsageError(f"{option} needs a file: with '-o -' there is only one stream")
        if self.layout and self.max_size:
            raise click.UsageError("--max-size is for tar files, not for the directory of --layout")

    def load_signer(self) -> Sign | None:
        try:
            return load_signer(self.key.read_bytes()) if self.key else None
        except ValueError as error:
            raise click.UsageError(f"--key: {self.key}: {error}") from None


@click.command("export", short_help="Write images to an archive that docker, podman and skopeo read.")
@json_option
@click.option(
    "-o", "--output", required=True, type=click.Path(allow_dash=True),
    help="File or directory to write; '-' is standard output.",
)  # fmt: skip
@click.option("--platform", type=PLATFORM, help="Only this platform of a multi-platform image.")
@click.option(
    "-f", "--file", "files", multiple=True, type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    help="Export the images that a file names: a list, a lock file, or YAML of Kubernetes, compose or helm"
    " template; repeatable.",
)  # fmt: skip
@click.option("--all", "everything", is_flag=True, help="Export all tags that the cache holds.")
@click.option(
    "--since", type=click.Path(exists=True, path_type=Path),
    help="Leave out what this earlier export has: its archive, one of its parts, its directory, or the"
    " dockmirror.json in it.",
)  # fmt: skip
@click.option("--no-referrers", is_flag=True, help="Leave out signatures, SBOMs and other referrers.")
@click.option("--max-size", type=_SIZE, help="Write several files of at most this size, such as 4GB.")
@click.option("--layout", is_flag=True, help="Write a directory with an OCI image layout, and no tar file.")
@click.option("--key", type=_FILE, help="Sign the checksums with this private key, in PEM.")
@click.argument("images", nargs=-1, shell_complete=complete_image)
@click.pass_obj
def export(
    context: Context,
    /,
    as_json: bool,
    platform: Platform | None,
    images: tuple[str, ...],
    since: Path | None,
    **options: Any,
) -> None:
    """Write IMAGES to an archive that docker load, podman load, ctr image import and skopeo read.

    IMAGES are names, or patterns such as 'ghcr.io/o/**' and 'nginx:1.*', of which the platforms are exported
    that the cache holds.  The archive is an OCI image layout in a tar file, with the manifest.json of docker
    save; its checksums lie beside it.  Without --key, the same images always give the same bytes.  Nothing is
    fetched: the cache has to hold named images completely.  A tag is exported as the digest that the
    cool-down of its policy admits.

    Exit status: 0; 1 when something is missing or corrupt, and no archive is written.
    """
    files, everything = options.pop("files"), options.pop("everything")
    selection = ExportSelection(images, files, everything, platform, not options.pop("no_referrers"))
    output = _Output(**options)
    output.check(as_json)
    if not (images or files or everything):
        raise click.UsageError("expected images, a file that names them, or --all")
    earlier, sign = _read_earlier(since), output.load_signer()
    settings = context.settings
    root = find_store(settings)
    packed = select_new(selection.pack(settings, root), earlier)
    inventory = make_inventory(packed, earlier)
    layout = plan_layout(packed, earlier)
    if sign is not None:  # an importer believes only a signed history
        layout[INVENTORY] = bytes(evolve(inventory, tags=_read_histories(root, settings, packed)))
    try:
        written = _write_output(layout, open_contents(root), output, sign)
    except ArchiveContentError as error:
        raise click.ClickException(f"{output.output}: {error}") from None
    except OSError as error:
        where = error.filename if Path(error.filename or "").is_relative_to(root) else output.output
        raise click.ClickException(f"{where}: {error.strerror}") from None
    _report(packed, inventory, earlier, written, output, as_json)


def _read_histories(root: Path, settings: Settings, images: Iterable[PackedImage]) -> Mapping[str, bytes]:
    """Return what the images' tags have named lately, by the images' names.

    Of several upstreams with the same registry, the first counts that has seen the tag.

    :raises click.ClickException: when a history cannot be read.
    """
    histories = TagHistoryFiles(root)
    found: dict[str, bytes] = {}
    for image in images:
        repository = Repository(image.name.removesuffix(f":{image.tag}"))
        for key in history_keys(ImageName(repository, Tag(image.tag)), settings) if image.tag else ():
            try:
                sightings = histories.read(key).sightings
            except OSError as error:
                raise click.ClickException(f"{image.name}: {error}") from None
            if sightings:
                found.setdefault(image.name, bytes(TagRecord(sightings[-_MOST_SIGHTINGS:])))
    return found


def _read_earlier(since: Path | None) -> Inventory:
    """:raises click.ClickException: when it is no archive of this command."""
    if since is None:
        return Inventory()
    try:
        if since.is_dir():
            return Inventory.parse((since / INVENTORY).read_bytes())
        if since.suffix == ".json":
            return Inventory.parse(since.read_bytes())
        with ExitStack() as stack:
            (parts,) = group_parts(find_parts(since))
            files = [stack.enter_context(each.open("rb")) for each in parts]

            def open_temporary() -> BinaryIO:
                return stack.enter_context(tempfile.TemporaryFile())

            inventory = ImageArchive.open(open_seekable(files, open_temporary)).inventory
        if not inventory.known:
            raise ArchiveRefused(f"it has no {INVENTORY}: expected an archive of dockmirror export")
        return inventory
    except (ArchiveRefused, ValueError, OSError) as error:
        raise click.ClickException(f"--since: {since}: {error}") from None


def _report(
    packed: Sequence[PackedImage],
    inventory: Inventory,
    earlier: Inventory,
    written: Mapping[str, int],
    output: _Output,
    as_json: bool,
) -> None:
    names = [each.name for each in packed]
    assumed = sorted({str(digest) for each in packed for digest in each.blobs} & set(map(str, earlier.known)))
    if as_json:
        files = {"files": list(written), "assumed": assumed, "contents": len(inventory.contents)}
        print_json({"output": output.output, "size": sum(written.values()), "images": names, **files})
        return
    if earlier.known:
        print_note(f"{len(names)} new images; {len(assumed)} blobs are left to the earlier export:")
        for digest in assumed:
            print_note(f"  {digest}")
    if len(written) > 1 and not output.layout:
        print_note(f"{len(written)} files, {format_size(sum(written.values()))} together")


def _write_output(
    layout: Mapping[str, Piece], open_content: OpenContent, output: _Output, sign: Sign | None
) -> Mapping[str, int]:
    """Write the archive with its checksums, and return the sizes of its files by their names."""
    if output.layout:
        return _write_directory(layout, open_content, output.path, sign)
    plan = plan_tar(layout)
    if output.is_stdout:
        _copy(read_archive(plan, open_content), plan.size, sys.stdout.buffer)
        return {"-": plan.size}
    path, limit = output.path, output.max_size or plan.size
    count = -(-plan.size // limit)
    names = [path.name] if output.max_size is None else [f"{path.name}.{n:03}" for n in range(1, count + 1)]
    sizes = {name: min(limit, plan.size - number * limit) for number, name in enumerate(names)}
    sums = _write_files(
        read_archive(plan, open_content), {path.with_name(each): sizes[each] for each in names}
    )
    ChecksumFiles.of_archive(path).write(sums, sign)
    return sizes


def _write_directory(
    layout: Mapping[str, Piece], open_content: OpenContent, directory: Path, sign: Sign | None
) -> Mapping[str, int]:
    """Write a directory, its index last; a content that it has already is not written again."""
    directory.mkdir(parents=True, exist_ok=True)
    sums: dict[str, str] = {}
    for name in sorted(layout, key=lambda each: (isinstance(layout[each], bytes), each)):
        piece, path = layout[name], directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(piece, ContentSlice) and path.exists() and path.stat().st_size == piece.size:
            continue
        written = _write_files(read_archive(ArchivePlan((piece,)), open_content), {path: piece_size(piece)})
        if not isinstance(piece, ContentSlice):
            sums[name] = written[path.name]
    ChecksumFiles.of_directory(directory).write(sums, sign)
    return {name: piece_size(piece) for name, piece in layout.items()}


class _PieceSplitter:
    """Hands out an archive's bytes in runs of given sizes."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def take(self, size: int) -> Iterator[bytes]:
        """Yield the next bytes."""
        while size:
            piece = self._rest or next(self._pieces)
            yield piece[:size]
            self._rest, size = piece[size:], max(0, size - len(piece))

    def finish(self) -> None:
        """Read to the end, where the last content is verified."""
        for _ in self._pieces:
            pass


def _write_files(pieces: Iterator[bytes], sizes: Mapping[Path, int]) -> dict[str, str]:
    """Write an archive to files of these sizes, which get their names at the end; return their SHA-256."""
    temporary = {path: path.with_name(f".{path.name}.{os.getpid()}") for path in sizes}
    splitter, sums = _PieceSplitter(pieces), {}
    try:
        for path, size in sizes.items():
            with temporary[path].open("xb") as file:
                sums[path.name] = _copy(splitter.take(size), size, file)
        splitter.finish()
        for path, written in temporary.items():
            written.replace(path)
        return sums
    except BaseException:
        for written in temporary.values():
            with suppress(FileNotFoundError):
                written.unlink()
        raise


def _copy(pieces: Iterable[bytes], size: int, file: BinaryIO) -> str:
    """Write pieces to a file, and return their SHA-256."""
    hashed = sha256()
    with progress_bars("exporting") as bar:
        task = bar.add_task("", total=size)
        for piece in report_progress(pieces, lambda count: bar.advance(task, count)):
            file.write(piece)
            hashed.update(piece)
        file.flush()
    return hashed.hexdigest()
