"""Stored images as the parts of an archive; all calls block."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from ..archive.archive_plan import OpenContent, PackedImage
from ..oci.digest import Digest
from ..oci.manifest import Platform
from ..oci.reference import Reference, Repository, Tag
from . import layout
from .held_images import HeldImages, StoredImage


class ImageNotHeld(LookupError):
    """The store does not hold an image completely."""

    def __str__(self) -> str:
        return str(self.args[0])


def pack_image(
    held_images: HeldImages,
    name: str,
    repository: Repository,
    reference: Reference,
    platform: Platform | None,
) -> PackedImage:
    """Return an image that the store holds completely.

    :param name: the image's name in the archive and in messages.
    :raises ImageNotHeld: when it does not.
    """
    digest = find_digest(held_images, repository, reference)
    image = held_images.read_image(repository, digest) if digest else None
    if image is None or image.data is None:
        raise ImageNotHeld(f"{name} is not in the cache in {held_images.root}")
    selected = _select_platform(image, platform, name)
    _check_complete(selected, name, held_images.root)
    manifests = {each.digest: each.data for each in selected.walk() if each.data is not None}
    blobs = {d: stored.size for each in selected.walk() for d, stored in each.blobs.items() if stored}
    tag = reference.name if isinstance(reference, Tag) else ""
    return PackedImage(name, tag, selected.digest, manifests, blobs)


def find_digest(held_images: HeldImages, repository: Repository, reference: Reference) -> Digest | None:
    """Return the digest that a reference names in the store, or None."""
    if isinstance(reference, Digest):
        return reference
    tagged = held_images.list_tags(repository).get(reference)
    return tagged.digest if tagged else None


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
