"""``dockmirror lock``: write the lock file of a policy, and move what it lists."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import click
from attrs import evolve, frozen
from twisted.internet.defer import DeferredSemaphore, gatherResults

from ..admission.admit import SERVE, Refuse, ServeInstead
from ..admission.lock_file import LockedImage, LockFile, LockFileInvalid, format_seen
from ..app.local_admission import LocalAdmission, TagUnderPolicy
from ..app.naming import ImageName, find_upstream
from ..config.settings import Settings
from ..interfaces import IRegistry, Sighting
from ..oci.digest import Digest
from ..oci.errors import RegistryError
from ..oci.manifest import Platform
from ..oci.media import EVERYTHING
from ..oci.request import Manifest, RegistryRequest, Repository, Tag
from ..store import layout
from ..store.files import read_small_file
from ..store.held_images import HeldImages
from ..store.tag_history import TagHistoryFiles
from ..system.times import parse_timestamp
from .arguments import MirrorOptions, ParsedType, json_option, mirror_options
from .client_command import replace_text
from .command_context import (
    Context,
    find_store,
    parse_glob,
    print_json,
    print_note,
    print_table,
    run_with_reactor,
    shorten_digest,
)

_DEFAULT = Path("dockmirror.lock")
_DAY = 86_400.0
_AT_ONCE = 8
"""The number of tags that the running mirror is asked about at the same time."""


def _parse_time(text: str) -> float:
    """Parse a day, which counts to its end, or a time; see ``parse_timestamp``."""
    try:
        seconds = parse_timestamp(text)
    except ValueError:
        raise ValueError(f"expected a date such as 2026-03-01, not {text}") from None
    return seconds + _DAY if len(text) == len("2026-03-01") else seconds


_TIME = ParsedType("date", _parse_time)


@click.command("lock", short_help="Write the digests of tags into a lock file.")
@json_option
@click.option(
    "-f", "--file", type=click.Path(path_type=Path, dir_okay=False),
    help="The lock file.  Default: that of the policies, if they name one, or dockmirror.lock.",
)  # fmt: skip
@click.option("--update", is_flag=True, help="Show which listed images would move, and move them.")
@click.option(
    "--refresh", is_flag=True,
    help="With --update, first have the running mirror ask the registries what the listed tags name.",
)  # fmt: skip
@click.option(
    "--as-of", type=_TIME, metavar="DATE", help="Write what tags named then, as far as it was seen."
)
@mirror_options
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation before anything moves.")
@click.argument("patterns", nargs=-1)
@click.pass_obj
def lock(
    context: Context, /, file: Path | None, mirror: MirrorOptions, as_of: float | None,
    patterns: tuple[str, ...], **flags: bool,
) -> None:  # fmt: skip
    """Add the images in the cache to the lock file, or those whose names match PATTERNS.

    Images that the file lists stay as they are, unless you give --update or --as-of: these show what would
    move, and ask.  A pattern such as "docker.io/library/*" matches names with their tags.

    A tag gets the digest that the mirror last saw it name, or the one that its cool-down has admitted; a tag
    of a recalled digest is left out.  With --as-of, a tag gets the digest that it named at that time.
    Registries are asked only with --refresh.

    Exit status: 0; 1 when there is no cache, when a new file would list no image that matches PATTERNS, when
    the file is invalid, when you answer no, or when the running mirror answers for no tag (--refresh).
    """
    update, as_json = flags["update"], flags["as_json"]
    if update and as_of is not None:
        raise click.UsageError("--update and --as-of exclude each other")
    if flags["refresh"] and not update:
        raise click.UsageError("--refresh goes with --update")
    mirror.check_goes_with("--refresh", flags["refresh"])
    settings = context.settings
    path, globs = file or _find_file(settings), [parse_glob(each, settings) for each in patterns]
    old = _read(path)
    known = _KnownTags(settings, find_store(settings))
    if flags["refresh"]:
        connect = mirror.make_connect(settings)
        _refresh(connect, [key for key, each in old.images.items() if _matches(each, globs)], settings)
    found = known.as_of(as_of) if as_of is not None else known.current()
    selected = {key: each for key, each in found.items() if _matches(each, globs)}
    if globs and not selected and not path.exists():
        raise click.ClickException(
            f"{path} is not written: no image that may be served matches {', '.join(globs)}"
        )
    new = _merge(old, selected, moves=update or as_of is not None, adds=not update)
    changes = _find_changes(old, new)
    moved = [change for change in changes if change[0] is not None]
    if not as_json:
        _print_changes(changes)
    if moved and not flags["yes"]:
        click.confirm(f"Move {len(moved)} images in {path}?", abort=True, err=as_json)
    if changes or not path.exists():
        replace_text(path, str(new))
    if as_json:
        print_json(
            {
                "file": str(path),
                "images": len(new.images),
                "added": [str(after) for before, after in changes if before is None],
                "moved": [{"from": str(before), "to": str(after)} for before, after in moved],
            }
        )
    else:
        print_note(f"{path}: {len(new.images)} images, {len(changes) - len(moved)} added, {len(moved)} moved")


_Change = tuple[LockedImage | None, LockedImage]
_Key = tuple[Repository, Tag]


def _matches(image: LockedImage, patterns: Sequence[str]) -> bool:
    names = (image.name, str(image.repository))
    return not patterns or any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


def _merge(old: LockFile, found: Mapping[_Key, LockedImage], moves: bool, adds: bool) -> LockFile:
    """Return the file with the images that were found.

    :param moves: True if listed images become what was found.
    :param adds: True if others are listed.
    """
    images = dict(old.images)
    for key, image in found.items():
        before = images.get(key)
        if (before is None and adds) or (before is not None and moves and before.digest != image.digest):
            images[key] = image
    return LockFile(images)


def _find_changes(old: LockFile, new: LockFile) -> list[_Change]:
    """Return each image that was added or moved, with what it was before."""
    pairs = ((old.images.get(key), image) for key, image in new.images.items())
    return sorted(
        ((before, after) for before, after in pairs if before != after), key=lambda change: change[1]
    )


def _print_changes(changes: Sequence[_Change]) -> None:
    if changes:
        rows = [
            (
                after.name,
                shorten_digest(before.digest) if before else "",
                shorten_digest(after.digest),
                format_seen(after.first_seen),
            )
            for before, after in changes
        ]
        print_table(("image", "from", "to", "first seen"), rows)


def _find_file(settings: Settings) -> Path:
    """Return the lock file of the policies, if they name just one."""
    named = {policy.lock for policy in settings.policy if policy.lock is not None}
    if len(named) > 1:
        raise click.UsageError("the policies name several lock files; say which one with --file")
    return named.pop() if named else _DEFAULT


def _read(path: Path) -> LockFile:
    try:
        return LockFile.parse(path.read_text("utf-8"))
    except FileNotFoundError:
        return LockFile({})
    except (UnicodeDecodeError, LockFileInvalid) as error:
        raise click.ClickException(f"{path}: {error}") from None


@frozen
class _KnownTags:
    """The tags that the mirror knows, and what each of them is."""

    settings: Settings
    root: Path

    def current(self) -> Mapping[_Key, LockedImage]:
        """Return what each tag in the cache is served as."""
        admission, held = LocalAdmission(self.settings, self.root, time.time()), HeldImages(self.root)
        found: dict[_Key, LockedImage] = {}
        for upstream, registry in self._upstreams():
            for repository in held.list_repositories():
                if repository.first != registry:
                    continue
                for tag, entry in held.list_tags(repository).items():
                    sightings = self._sightings(upstream, repository, tag)
                    digest = _choose(admission.find(ImageName(repository, tag)), entry.digest)
                    if digest is not None and admission.find_recall(repository, digest) is None:
                        seen = [each.first for each in sightings if each.digest == digest]
                        image = LockedImage(
                            repository, tag, digest, (), int(min(seen, default=entry.confirmed))
                        )
                        found[repository, tag] = self._with_platforms(held, image)
        return found

    def as_of(self, time: float) -> Mapping[_Key, LockedImage]:
        """Return what each tag named at a time; tags that had not been seen by then are left out."""
        held = HeldImages(self.root)
        found: dict[_Key, LockedImage] = {}
        for upstream, registry in self._upstreams():
            for rest, tag in TagHistoryFiles(self.root).iter_tags(upstream):
                repository = Repository(f"{registry}/{rest}")
                before = [each for each in self._sightings(upstream, repository, tag) if each.first <= time]
                if before:
                    last = before[-1]
                    image = LockedImage(repository, tag, last.digest, (), int(last.first))
                    found[repository, tag] = self._with_platforms(held, image)
        return found

    def _upstreams(self) -> Iterator[tuple[str, str]]:
        """Yield the name of an upstream for each registry."""
        registries: set[str] = set()
        for name, upstream in self.settings.upstreams.items():
            registry = upstream.canonical
            if registry not in registries:
                registries.add(registry)
                yield name, registry

    def _sightings(self, upstream: str, repository: Repository, tag: Tag) -> Sequence[Sighting]:
        try:
            key = upstream, Repository(repository.rest), tag
            return TagHistoryFiles(self.root).read(key).sightings
        except OSError as error:
            raise click.ClickException(f"{repository}:{tag}: {error}") from None

    @staticmethod
    def _with_platforms(held: HeldImages, image: LockedImage) -> LockedImage:
        """Add the platforms of an image that is in the cache."""
        read = held.read_image(image.repository, image.digest)
        config = read.manifest.config if read.manifest is not None else None
        platforms = {each.platform for each in read.children if each.platform}
        if config is not None and config.digest is not None:
            platforms = {_read_platform(held.root / layout.data(config.digest))}
        stated = (each for each in platforms if each.is_real and each.is_plain)
        return evolve(image, platforms=tuple(sorted(stated, key=str)))


def _read_platform(config: Path) -> Platform:
    """Return the platform that an image's configuration states; without names if it states none."""
    found = read_small_file(config)
    with suppress(ValueError):
        fields = json.loads(found.data if found else b"")
        if isinstance(fields, dict):
            return Platform.from_fields(fields)
    return Platform("", "")


def _choose(tag: TagUnderPolicy | None, digest: Digest) -> Digest | None:
    """Return the digest that the cool-down gives a tag whose current one is this; None if it refuses."""
    verdict = SERVE if tag is None or tag.policy.mode != "enforce" else tag.decide(digest)
    match verdict:
        case ServeInstead():
            return verdict.digest
        case Refuse():
            return None
    return digest


def _refresh(
    connect: Callable[[Any], IRegistry], tags: Sequence[tuple[Repository, Tag]], settings: Settings
) -> None:
    """Have a running mirror ask the registries about tags by HEAD; note those that they do not answer.

    Tags of upstreams that are offline are not asked about.

    :param connect: connects to the mirror with a reactor.
    :param tags: with their registries in front.
    :raises click.ClickException: when none is answered.
    """
    offline = {each: why for each in tags if (why := _explain_offline(each[0].first, settings))}
    asked = [each for each in tags if each not in offline]
    problems = [_describe(*tag, why) for tag, why in offline.items()]
    if asked:
        problems += run_with_reactor(lambda reactor: ask_all(connect(reactor), asked))
    for problem in problems:
        print_note(problem)
    if offline and not asked:
        reasons = ", and ".join(dict.fromkeys(offline.values()))
        raise click.ClickException(f"{reasons}, so no registry was asked")
    if tags and len(problems) == len(tags):
        raise click.ClickException("the running mirror answers for none of the listed tags")


def _explain_offline(registry: str, settings: Settings) -> str:
    """Return the reason for which a registry is not asked; nothing if it is."""
    if settings.offline:
        return "the mirror is offline"
    upstream = find_upstream(registry, settings)
    names = [name for name, each in settings.upstreams.items() if each is upstream and each.offline]
    return f"the upstream {names[0]} is offline" if names else ""


async def ask_all(registry: IRegistry, tags: Sequence[tuple[Repository, Tag]]) -> list[str]:
    """Ask a mirror about tags, however fresh its copies are; return the problems."""
    places = DeferredSemaphore(_AT_ONCE)
    asked = await gatherResults([places.run(_ask, registry, *each) for each in tags])
    return [problem for problem in asked if problem]


async def _ask(registry: IRegistry, repository: Repository, tag: Tag) -> str:
    """Ask about a tag; return the problem, or nothing."""
    request = RegistryRequest(Manifest(repository, tag), head=True, accept=EVERYTHING, revalidate=True)
    try:
        answer = await registry.fetch(request)
        answer.body.discard()
        problem = answer.cache.unconfirmed if answer.cache else ""
    except RegistryError as error:
        problem = error.summary
    return _describe(repository, tag, problem) if problem else ""


def _describe(repository: Repository, tag: Tag, problem: str) -> str:
    return f"{repository}:{tag} is left as it was seen before: {problem}"
