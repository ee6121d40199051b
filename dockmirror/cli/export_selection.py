"""The images that ``dockmirror export`` is asked for: by name, by pattern, from files, or all."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import click
import yaml  # type: ignore[import-untyped, unused-ignore]
from attrs import evolve, field, frozen

from ..app.local_admission import ExportGates
from ..app.naming import ImageName, parse_image_pattern
from ..archive.archive_plan import PackedImage
from ..config.settings import Settings
from ..oci.digest import Digest
from ..oci.errors import Denied, DigestInvalid
from ..oci.manifest import Platform
from ..oci.pull_rule import PullRule, has_wildcards
from ..oci.request import Manifest, Reference, Repository, Tag
from ..store.held_images import HeldImages
from ..store.packed_images import ArtifactFinder, ExportGate, ImageNotHeld, pack_held_platforms, pack_image
from .command_context import parse_image, print_note

_IMAGE_KEY = "image"
_TEXT = "tag:yaml.org,2002:str"


@frozen
class _Selected:
    """An image to export.

    :ivar digest: the digest that its tag is exported as; None for the one that it is served as.
    :ivar is_match: True if a pattern has found it; then it may be incomplete.
    """

    name: ImageName
    digest: Digest | None = None
    is_match: bool = False


@frozen
class _Notes:
    """Prints each note once, although several images may be the reason for it."""

    printed: set[str] = field(factory=set)

    def note(self, text: str) -> None:
        if text not in self.printed:
            self.printed.add(text)
            print_note(text)

    def leave_out(self, error: Exception) -> None:
        self.note(f"left out: {str(error).splitlines()[0].rstrip(' :;')}")


@frozen
class ExportSelection:
    """The images that the command is asked for.

    :ivar texts: names and patterns.
    :ivar files: lists of images.
    :ivar everything: True if all images are meant.
    :ivar platform: the only platform of multi-platform images.
    :ivar with_artifacts: True if signatures, SBOMs and other referrers belong to an image.
    """

    texts: Sequence[str] = ()
    files: Sequence[Path] = ()
    everything: bool = False
    platform: Platform | None = None
    with_artifacts: bool = True

    def pack(self, settings: Settings, root: Path) -> list[PackedImage]:
        """Return the images, each once, with what belongs to them.

        :raises click.ClickException: when a named image is incomplete or refused.
        """
        held_images, packed = HeldImages(root), dict[str, PackedImage]()
        notes = _Notes()
        finder, gates = ArtifactFinder(held_images), ExportGates(settings, root, time.time(), notes.note)
        for selected in self._select(settings, held_images):
            image = self._pack_one(selected, held_images, gates, notes)
            if image is None:
                continue
            packed.setdefault(image.name, image)
            if self.with_artifacts:
                place = selected.name.repository
                make_gate = partial(_make_gate, gates, place)
                for artifact in finder.pack(place, image, make_gate, notes.leave_out):
                    packed.setdefault(artifact.name, artifact)
        return list(packed.values())

    def _pack_one(
        self, selected: _Selected, held_images: HeldImages, gates: ExportGates, notes: _Notes
    ) -> PackedImage | None:
        """Return an image, or None for one that a pattern has found and that cannot be exported."""
        name, reference = selected.name, selected.digest or selected.name.reference
        gate = gates.make(evolve(name, reference=reference))
        try:
            if selected.is_match and self.platform is None:
                return pack_held_platforms(held_images, str(name), name.repository, reference, gate)
            image = pack_image(held_images, str(name), name.repository, reference, self.platform, gate)
        except (ImageNotHeld, Denied) as error:
            if not selected.is_match:
                raise click.ClickException(str(error)) from None
            notes.leave_out(error)
            return None
        return evolve(image, tag=name.reference.name) if isinstance(name.reference, Tag) else image

    def _select(self, settings: Settings, held_images: HeldImages) -> Iterator[_Selected]:
        for text in self.texts:
            if has_wildcards(text):
                yield from _match(_parse_pattern(text, settings), text, held_images)
            else:
                yield _Selected(parse_image(text, settings))
        for file in self.files:
            for name, digest in _read_list(file):
                yield _Selected(parse_image(name, settings), digest)
        if self.everything:
            yield from _list_all(held_images, lambda _: True)


def _parse_pattern(text: str, settings: Settings) -> PullRule:
    try:
        return parse_image_pattern(text, settings)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _make_gate(gates: ExportGates, repository: Repository, reference: Reference) -> ExportGate:
    return gates.make(ImageName(repository, reference))


def _read_list(file: Path) -> list[tuple[str, Digest | None]]:
    """Return the names in a file, each with its digest if it is a lock file.

    :raises click.ClickException: when the file cannot be read or names none.
    """
    try:
        return _parse_list(sys.stdin.read() if str(file) == "-" else file.read_text("utf-8"))
    except (ValueError, OSError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise click.ClickException(f"{file}: {why}") from None


def _match(rule: PullRule, text: str, held_images: HeldImages) -> Iterator[_Selected]:
    """:raises click.ClickException: when no image matches."""
    found = list(_list_all(held_images, lambda name: rule.covers(Manifest(name.repository, name.reference))))
    if not found:
        raise click.ClickException(f"no image in the cache matches {text}")
    yield from found


def _list_all(held_images: HeldImages, matches: Callable[[ImageName], bool]) -> Iterator[_Selected]:
    for repository in held_images.list_repositories():
        for tag in held_images.list_tags(repository):
            name = ImageName(repository, tag)
            if matches(name):
                yield _Selected(name, is_match=True)


def _parse_list(text: str) -> list[tuple[str, Digest | None]]:
    """Return the names in a plain list, a lock file, or YAML, without duplicates, in their order.

    YAML is that of Kubernetes manifests, of rendered Helm charts and of compose files: every key ``image``
    with a text names an image.

    :raises ValueError: when it is none of them, or names no images; the message says where.
    """
    found: list[tuple[str, Digest | None]]
    rows = [words for line in text.splitlines() if (words := line.partition("#")[0].split())]
    if all(len(words) == 1 and not words[0].endswith(":") and words != ["---"] for words in rows):
        found = [(words[0], None) for words in rows]
    elif all(_is_locked(words) for words in rows):
        found = [(words[0], Digest.parse(words[1])) for words in rows]
    else:
        found = [(_check_name(each), None) for each in _read_yaml(text)]
    if not found:
        raise ValueError("it names no images")
    return list(dict.fromkeys(found))


def _is_locked(words: list[str]) -> bool:
    try:
        return len(words) == 4 and bool(Digest.parse(words[1]))
    except DigestInvalid:
        return False


def _read_yaml(text: str) -> Iterator[str]:
    try:
        for document in yaml.compose_all(text, yaml.SafeLoader):
            yield from _find_images(document)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        raise ValueError(f"{where}it is neither a list of images nor YAML") from None


def _find_images(node: yaml.Node) -> Iterator[str]:
    """Yield the images in a document; its other values, such as dates, need not be valid."""
    match node:
        case yaml.MappingNode():
            for key, inner in node.value:
                if key.value == _IMAGE_KEY and isinstance(inner, yaml.ScalarNode) and inner.tag == _TEXT:
                    yield inner.value
                else:
                    yield from _find_images(inner)
        case yaml.SequenceNode():
            for inner in node.value:
                yield from _find_images(inner)


def _check_name(name: str) -> str:
    if "$" in name or "{{" in name:
        raise ValueError(
            f"{name} has a variable: give what 'docker compose config' or 'helm template' prints"
        )
    return name
