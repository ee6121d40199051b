"""``dockmirror warm``: pull images into the cache of a running mirror."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TextIO

import click
from attrs import asdict, evolve, frozen

from ..config.notation import format_size
from ..interfaces import IRegistry
from ..oci.digest import Descriptor
from ..oci.errors import RegistryError
from ..oci.manifest import Platform
from ..oci.request import RegistryRequest
from ..pull import HeldCheck, ImagePuller, PulledImage, Wanted, explain_missing
from .arguments import MirrorOptions, complete_image, json_option, mirror_options, platforms_option
from .command_context import (
    Context,
    parse_image,
    print_json,
    print_note,
    print_table,
    progress_bars,
    run_with_reactor,
)

if TYPE_CHECKING:
    from rich.progress import Progress


@frozen
class _WarmOptions:
    """The command's options, by the names of its parameters."""

    file: TextIO | None
    platforms: tuple[Platform, ...]
    referrers: bool
    jobs: int
    mirror: MirrorOptions

    def listed_images(self) -> list[str]:
        """Return the images in the file: one a line, without comments.

        :raises click.ClickException: when it is no text.
        """
        if self.file is None:
            return []
        try:
            return [name for line in self.file if (name := line.partition("#")[0].strip())]
        except UnicodeDecodeError as error:
            raise click.ClickException(f"{self.file.name}: {error}") from None


@frozen
class _WarmResult:
    """The outcome for one image.

    :ivar parts: a request for each part of the image.
    :ivar error: says why the mirror does not hold all of them.
    """

    image: str
    pulled: PulledImage
    error: str | None = None
    parts: Sequence[RegistryRequest] = ()

    def fields(self) -> dict[str, Any]:
        """Return the result as JSON has it."""
        return {"image": self.image, **asdict(self.pulled), "error": self.error}

    def row(self) -> Sequence[str]:
        """Return the cells of the result's row in the table."""
        counts = (self.pulled.manifests, self.pulled.held, self.pulled.fetched)
        return (self.image, *map(str, counts), format_size(self.pulled.bytes))


@click.command("warm", short_help="Pull images into the cache of a running mirror.")
@json_option
@click.option(
    "-f", "--file", type=click.File(encoding="utf-8"),
    help="Read images from a file, one a line; '#' begins a comment, '-' is standard input.",
)  # fmt: skip
@platforms_option
@click.option("--referrers", is_flag=True, help="Pull referrers too, such as signatures and attestations.")
@click.option(
    "--jobs", type=click.IntRange(1, 64), default=4, show_default=True,
    help="Number of blobs to read at the same time.",
)  # fmt: skip
@mirror_options
@click.argument("images", nargs=-1, shell_complete=complete_image)
@click.pass_obj
def warm(context: Context, /, as_json: bool, images: tuple[str, ...], **options: Any) -> None:
    """Pull IMAGES through a running mirror, so that its cache holds them; keep nothing here.

    Blobs that the mirror holds already are not read again: a second run continues where the first stopped.
    At the end the command asks the mirror for every manifest and blob whether its cache has it.

    Exit status: 0 when the mirror holds all images, 1 otherwise.
    """
    given = _WarmOptions(**options)
    names = dict.fromkeys(parse_image(each, context.settings) for each in [*images, *given.listed_images()])
    if not names:
        raise click.UsageError("expected images, or a file that lists them")
    wanted = {
        str(name): Wanted(name.repository, name.reference, given.platforms, given.referrers) for name in names
    }
    connect = given.mirror.make_connect(context.settings)
    try:
        results = run_with_reactor(partial(_warm, wanted, connect, given.jobs))
    except click.Abort:
        raise click.ClickException(
            "interrupted: the mirror keeps what it has received; run the command again to pull the rest"
        ) from None
    if as_json:
        print_json([each.fields() for each in results])
    else:
        columns = ("image", "manifests", "held", "fetched", "bytes")
        print_table(columns, [each.row() for each in results], right=columns[1:])
        for each in results:
            if each.error:
                click.echo(f"{each.image}: {each.error}")
    raise SystemExit(1 if any(each.error for each in results) else 0)


async def _warm(
    wanted: dict[str, Wanted], connect: Callable[[Any], IRegistry], jobs: int, reactor: Any
) -> list[_WarmResult]:
    registry = connect(reactor)
    with progress_bars("") as bars:
        pull = ImagePuller(registry, jobs, partial(_progress_bar, bars), print_note)
        results = [await _pull(pull, bars, name, image) for name, image in wanted.items()]
    return await _check_held(results, HeldCheck(registry, reactor, jobs))


async def _pull(pull: ImagePuller, bars: Progress, name: str, wanted: Wanted) -> _WarmResult:
    """Pull one image, with its name above its progress bars."""
    pulled = PulledImage()
    if not bars.disable:
        bars.console.print(name, markup=False, highlight=False)
    try:
        return _WarmResult(name, pulled, parts=await pull.image(wanted, pulled))
    except RegistryError as error:
        return _WarmResult(name, pulled, str(error))


async def _check_held(results: Sequence[_WarmResult], check: HeldCheck) -> list[_WarmResult]:
    """Return the results, with an error for each image that the mirror does not hold completely."""
    parts = dict.fromkeys(part for each in results for part in each.parts)
    missing = set(await check.missing(parts))
    return [
        evolve(each, error=each.error or explain_missing(missing.intersection(each.parts)))
        for each in results
    ]


@contextmanager
def _progress_bar(bars: Progress, blob: Descriptor) -> Iterator[Callable[[int], None]]:
    """Show a bar while a blob is read."""
    bar = bars.add_task(blob.digest.hex[:12] if blob.digest else "", total=blob.size)
    try:
        yield lambda count: bars.advance(bar, count)
    finally:
        bars.remove_task(bar)
