"""Images that are not evicted: pinned ones, and those that tags are held at; all calls block.

There is a file for each pin, and for each held tag.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from attrs import frozen

from ..oci.digest import Digest
from ..oci.errors import DigestInvalid, RegistryError
from ..oci.manifest import Platform
from ..oci.request import Reference, Repository, Tag, image_name, parse_reference
from ..system.times import ClockHistory
from . import files, layout, store_files

HOLD_SECONDS = 30 * 86_400.0
"""Seconds since its last use for which a tag is held at a manifest."""


@frozen
class Pin:
    """A pinned image.

    :ivar repository: the store's name of it, which begins with the registry.
    :ivar platforms: the platforms that are refreshed; all of them if empty.
    """

    repository: Repository
    reference: Reference
    platforms: tuple[Platform, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> Pin | None:
        """Parse a pin's file; None if it is malformed."""
        try:
            fields = json.loads(data)
            return cls(
                Repository.parse(fields["repository"]),
                parse_reference(fields["reference"]),
                tuple(map(Platform.parse, fields["platforms"])),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, RegistryError):
            return None

    def __bytes__(self) -> bytes:
        fields = {
            "repository": str(self.repository),
            "reference": str(self.reference),
            "platforms": [str(each) for each in self.platforms],
        }
        return json.dumps(fields).encode()

    def __str__(self) -> str:
        return image_name(self.repository, self.reference)


def add_pin(root: Path, pin: Pin) -> None:
    """Pin an image, or change the platforms of its pin; the image is due to be refreshed then.

    :raises OSError: if the pin cannot be written.
    """
    files.replace_file(_path(root, pin), bytes(pin), root / layout.TEMPORARY, 0.0)


def remove_pin(root: Path, pin: Pin) -> bool:
    """Unpin an image; report whether it was pinned."""
    return files.remove(_path(root, pin))


def find_pin(root: Path, pin: Pin) -> Pin | None:
    """Return the pin of the same image, which may be for other platforms; None if it is not pinned."""
    found = files.read_small_file(_path(root, pin))
    return Pin.parse(found.data) if found else None


def iter_pins(root: Path) -> Iterator[tuple[Pin, float]]:
    """Iterate over the pins, each with the time of its last refresh in seconds since the epoch, or 0."""
    for _, found in files.iter_small_files(root / layout.PINS):
        if pin := Pin.parse(found.data):
            yield pin, found.modified


def mark_refreshed(root: Path, pin: Pin, now: float) -> None:
    """Record a refresh, unless the image was unpinned or its platforms were changed meanwhile."""
    found = files.read_small_file(_path(root, pin))
    if found is not None and Pin.parse(found.data) == pin:
        with suppress(FileNotFoundError):
            os.utime(_path(root, pin), (now, now))


def iter_pinned_manifests(root: Path) -> Iterator[tuple[Repository, Digest]]:
    """Iterate over the manifests that are pinned, stored or not, each with its repository."""
    for pin, _ in iter_pins(root):
        if isinstance(pin.reference, Digest):
            yield pin.repository, pin.reference
        elif entry := store_files.read_link(root / layout.tag_link(pin.repository, pin.reference)):
            yield pin.repository, entry.digest


def lock_refresh(root: Path) -> int | None:
    """Lock refreshing until the returned file is closed; None if another process has the lock."""
    return files.lock(root / layout.PIN_REFRESH_LOCK)


def hold_tag(root: Path, repository: Repository, tag: Tag, digest: Digest, now: float) -> None:
    """Hold a tag at the manifest that it is served as, although its registry has moved on.

    :param repository: the store's name of it, which begins with the registry.
    :raises OSError: when it cannot be written.
    """
    path = root / layout.tag_hold(f"{repository}:{tag}")
    files.replace_file(path, str(digest).encode(), root / layout.TEMPORARY, now)


def iter_held_manifests(root: Path, clock: ClockHistory) -> Iterator[Digest]:
    """Iterate over the manifests that tags are held at; files of tags that nobody pulls are deleted."""
    for path, found in files.iter_small_files(root / layout.TAG_HOLDS):
        if abs(clock.now - clock.correct(found.modified)) > HOLD_SECONDS:
            files.remove(path)
            continue
        with suppress(DigestInvalid):
            yield Digest.parse(found.data.decode("ascii", "replace"))


def _path(root: Path, pin: Pin) -> Path:
    return root / layout.pin(str(pin))
