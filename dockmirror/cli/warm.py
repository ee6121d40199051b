"""``dockmirror warm``: images pulled into the cache of a mirror that runs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click
from attrs import asdict, evolve, frozen
from rich.progress import Progress

from ..app.naming import ImageName, parse_image_name
from ..app.upstream_stack import make_agent
from ..config.settings import ConfigurationError, Settings, UpstreamSettings
from ..oci.credentials import Credentials
from ..oci.descriptor import Descriptor
from ..oci.errors import RegistryError
from ..oci.platform import Platform
from ..oci.request import RegistryRequest
from ..pull import HeldCheck, Pull, PulledImage, Wanted
from ..upstream.resolvers import threaded_resolver
from .context import Context
from .output import as_json as json_option
from .output import progress, show_json, show_table, size
from .platforms import platforms_option
from .reactor import run
from .running_mirror import address, address_at, connect_to_mirror

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@frozen
class WarmResult:
    """What came of an image; ``error`` tells why not all of it is held.

    :ivar parts: what asks for each part of it.
    """

    image: str
    pulled: PulledImage
    error: str | None = None
    parts: Sequence[RegistryRequest] = ()

    def fields(self) -> dict[str, Any]:
        """For programs."""
        return {"image": self.image, **asdict(self.pulled), "error": self.error}

    def row(self) -> Sequence[str]:
        """For people."""
        counts = (self.pulled.manifests, self.pulled.held, self.pulled.fetched)
        return (self.image, *map(str, counts), size(self.pulled.bytes))


@click.command("warm", short_help="Images pulled into the cache of a mirror that runs.")
@json_option
@click.option(
    "-f", "--file", type=click.File(), help="Images, one a line; '#' begins a comment, '-' is standard input."
)
@platforms_option
@click.option("--referrers", is_flag=True, help="With what refers to them: signatures, attestations.")
@click.option(
    "--jobs", type=click.IntRange(1, 64), default=4, show_default=True, help="Blobs that are read at a time."
)
@click.option("--mirror", metavar="URL", help="The mirror.  Default: that of the settings, on this machine.")
@click.option("--ca-file", type=_FILE, help="Whom to trust with the mirror's certificate besides.")
@click.option("--user", help="Whoever may use the mirror, where that asks for a name.")
@click.option("--password-file", type=_FILE, help="The password of that name.")
@click.argument("images", nargs=-1)
@click.pass_obj
def warm(
    context: Context,
    as_json: bool,
    file: Any,
    platforms: tuple[Platform, ...],
    referrers: bool,
    jobs: int,
    mirror: str | None,
    ca_file: Path | None,
    user: str | None,
    password_file: Path | None,
    images: tuple[str, ...],
) -> None:
    """Pulls IMAGES through a mirror that runs, so that it holds them; nothing is kept here.

    What it holds already is not read again, so that a second run goes on where the first has ended.  At the
    end the mirror is asked for every manifest and blob whether its cache has it.

    Exit status: 0 when all of them are held, 1 otherwise.
    """
    names = _names([*images, *(_listed(file) if file else ())], context.settings)
    if not names:
        raise click.UsageError("expected images, or a file of them")
    wanted = [Wanted(name.repository, name.reference, platforms, referrers) for name in names]
    at, login = _address(context.settings, mirror, ca_file), _login(user, password_file)
    try:
        warmed = run(partial(_warmed, names, wanted, at, jobs, login))
    except click.Abort:
        raise click.ClickException(
            "interrupted: what has come is held, and a second run pulls the rest"
        ) from None
    if as_json:
        show_json([each.fields() for each in warmed])
    else:
        columns = ("image", "manifests", "held", "fetched", "bytes")
        show_table(columns, [each.row() for each in warmed], right=columns[1:])
        for each in warmed:
            if each.error:
                click.echo(f"{each.image}: {each.error}")
    raise SystemExit(1 if any(each.error for each in warmed) else 0)


async def _warmed(
    names: Sequence[ImageName],
    wanted: Sequence[Wanted],
    at: UpstreamSettings,
    jobs: int,
    credentials: Credentials | None,
    reactor: Any,
) -> list[WarmResult]:
    connects = make_agent(at, threaded_resolver(reactor), {}, lambda *_: None, reactor)
    registry = connect_to_mirror(at, connects, reactor, credentials)
    with progress("") as bars:
        pull = Pull(registry, jobs, partial(_bar, bars))
        warmed = [await _image(pull, bars, str(name), each) for name, each in zip(names, wanted, strict=True)]
    return await _verified(warmed, HeldCheck(registry, reactor, jobs))


async def _image(pull: Pull, bars: Progress, name: str, wanted: Wanted) -> WarmResult:
    """One of them, whose name stands above its bars."""
    pulled = PulledImage()
    if not bars.disable:
        bars.console.print(name, markup=False, highlight=False)
    try:
        return WarmResult(name, pulled, parts=await pull.image(wanted, pulled))
    except RegistryError as error:
        return WarmResult(name, pulled, str(error))


async def _verified(warmed: Sequence[WarmResult], check: HeldCheck) -> list[WarmResult]:
    """Return the same, with an error for each image of which the mirror does not hold all."""
    parts = dict.fromkeys(part for each in warmed for part in each.parts)
    missing = set(await check.missing(parts))
    return [evolve(each, error=each.error or _lacking(missing.intersection(each.parts))) for each in warmed]


def _lacking(missing: Collection[RegistryRequest]) -> str | None:
    """Return a sentence, or None where nothing is missing."""
    if not missing:
        return None
    first = min(str(part.target) for part in missing)
    return f"pulled, but the mirror does not hold {len(missing)} of its parts, such as {first}: see its log"


@contextmanager
def _bar(bars: Progress, blob: Descriptor) -> Iterator[Callable[[int], None]]:
    """A bar for a layer, as long as it comes."""
    bar = bars.add_task(blob.digest.hex[:12] if blob.digest else "", total=blob.size)
    try:
        yield lambda count: bars.advance(bar, count)
    finally:
        bars.remove_task(bar)


def _listed(file: Any) -> Iterator[str]:
    return filter(None, (line.partition("#")[0].strip() for line in file))


def _names(images: Sequence[str], settings: Settings) -> list[ImageName]:
    try:
        return list(dict.fromkeys(parse_image_name(image, settings) for image in images))
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _address(settings: Settings, url: str | None, ca_file: Path | None) -> UpstreamSettings:
    try:
        return address_at(url, ca_file) if url else address(settings, ca_file)
    except ConfigurationError as error:
        raise click.UsageError(f"{error}: say where it is by --mirror") from None
    except ValueError as error:
        raise click.UsageError(f"--mirror: {error}") from None


def _login(user: str | None, password_file: Path | None) -> Credentials | None:
    if (user is None) != (password_file is None):
        raise click.UsageError("--user and --password-file go together")
    if user is None or password_file is None:
        return None
    return Credentials.basic(user, password_file.read_text().rstrip("\n"))
