"""Stored images as the parts of an archive; all calls block."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from attrs import evolve, frozen

from ..archive.archive_plan import OpenContent, PackedImage
from ..oci.digest import Digest
from ..oci.errors import Denied
from ..oci.manifest import Platform
from ..oci.request import Reference, Repository, Tag, image_name
from . import layout
from .held_images import HeldImages, StoredImage


class ImageNotHeld(LookupError):
    """The store does not hold an image completely."""

    def __str__(self) -> str:
        return str(self.args[0])


@frozen
class ExportGate:
    """Decides on what leaves the store; each part raises the reason for which it is refused.

    :ivar check_digests: is given the digests of a manifest and of its blobs, held or not.
    :ivar choose: returns the digest that a tag is served as, given the one that it names in the store.
    :ivar check: is given each manifest, and the reference or digest by which it is exported.
    """

    check_digests: Callable[[Iterable[Digest]], None]
    choose: Callable[[Digest], Digest]
    check: Callable[[Reference, StoredImage], None]


def pack_image(
    held_images: HeldImages,
    name: str,
    repository: Repository,
    reference: Reference,
    platform: Platform | None,
    gate: ExportGate,
) -> PackedImage:
    """Return an image that the store holds completely.

    :param name: the image's name in the archive and in messages; a name by digest gives way to that of the
        platform.
    :raises ImageNotHeld: when it does not.
    """
    image = _select_image(held_images, name, repository, reference, gate)
    selected = _select_platform(image, platform, name)
    _check_complete(selected, name, held_images.root)
    if name == image_name(repository, image.digest):
        name = image_name(repository, selected.digest)
    return _pack(name, reference, selected, gate)


def pack_held_platforms(
    held_images: HeldImages, name: str, repository: Repository, reference: Reference, gate: ExportGate
) -> PackedImage:
    """Return an image with those of its platforms that the store holds completely.

    :raises ImageNotHeld: when it holds none.
    """
    image = _select_image(held_images, name, repository, reference, gate)
    if image.children:
        image = evolve(image, children=tuple(each for each in image.children if not each.find_missing()))
    if not image.children:
        _check_complete(held_images.read_image(repository, image.digest), name, held_images.root)
    return _pack(name, reference, image, gate)


def _select_image(
    held_images: HeldImages, name: str, repository: Repository, reference: Reference, gate: ExportGate
) -> StoredImage:
    """Return the image that a reference is served as.

    :raises ImageNotHeld: when its manifest is not held.
    """
    digest = held_images.find_digest(repository, reference)
    if digest is not None and isinstance(reference, Tag):
        digest = gate.choose(digest)
    image = held_images.read_image(repository, digest) if digest else None
    for each in image.walk() if image else ():
        gate.check_digests((each.digest, *each.blobs))
    if image is None or image.data is None:
        raise ImageNotHeld(f"{name} is not in the cache in {held_images.root}")
    gate.check(reference, image)
    return image


def _pack(name: str, reference: Reference, image: StoredImage, gate: ExportGate) -> PackedImage:
    for each in image.walk():
        gate.check(each.digest, each)
    manifests = {each.digest: each.data for each in image.walk() if each.data is not None}
    blobs = {d: stored.size for each in image.walk() for d, stored in each.blobs.items() if stored}
    tag = reference.name if isinstance(reference, Tag) else ""
    return PackedImage(name, tag, image.digest, manifests, blobs)


class ArtifactFinder:
    """Finds the held signatures, SBOMs and other manifests that belong to images, by subject and by tag.

    The manifests of a repository are read once.
    """

    def __init__(self, held_images: HeldImages) -> None:
        self._held_images = held_images
        self._known: dict[Repository, dict[Digest, list[tuple[Reference, Digest]]]] = {}

    def pack(
        self,
        repository: Repository,
        image: PackedImage,
        make_gate: Callable[[Reference], ExportGate],
        leave_out: Callable[[Denied], None],
    ) -> Iterator[PackedImage]:
        """Yield what belongs to an image, and to that in turn, if it is held completely and not refused.

        :param make_gate: returns the gate of one of them.
        :param leave_out: is given the reason for which one is refused.
        """
        if repository not in self._known:
            self._known[repository] = self._held_images.list_artifacts(repository)
        by_subject = self._known[repository]
        queue, seen = list(image.manifests), set(image.manifests)
        while queue:
            for reference, digest in by_subject.get(queue.pop(), ()):
                if digest in seen and isinstance(reference, Digest):
                    continue
                name, gate = image_name(repository, reference), make_gate(reference)
                try:
                    artifact = pack_image(self._held_images, name, repository, reference, None, gate)
                except ImageNotHeld:
                    continue
                except Denied as error:
                    leave_out(error)
                    continue
                queue += [each for each in artifact.manifests if each not in seen]
                seen.update(artifact.manifests)
                yield artifact


def open_contents(root: Path) -> OpenContent:
    """Return a function that opens the file of a content."""

    def open_content(digest: Digest) -> BinaryIO:
        return (root / layout.data(digest)).open("rb")

    return open_content


def _select_platform(image: StoredImage, platform: Platform | None, name: str) -> StoredImage:
    if platform is None or not image.children:
        return image
    matching = [child for child in image.children if child.platform and platform.matches(child.platform)]
    if not matching:
        available = ", ".join(str(c.platform) for c in image.children if c.platform and c.platform.is_real)
        raise ImageNotHeld(f"{name} has no platform {platform} in the cache; it has {available}")
    return min(matching, key=lambda child: child.platform != platform)


def _check_complete(image: StoredImage, name: str, root: Path) -> None:
    missing = image.find_missing()
    if not missing:
        return
    complete = [
        str(c.platform) for c in image.children if c.platform and c.platform.is_real and not c.find_missing()
    ]
    hint = f"\nComplete: --platform {' or '.join(complete)}." if complete else ""
    digests = "\n".join(f"  {digest}" for digest in missing)
    raise ImageNotHeld(f"{name} is incomplete in the cache in {root}; missing:\n{digests}{hint}")
