"""Images that are never evicted: a file for each, which commands write and mirrors read; calls that block."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from attrs import frozen

from ..oci.digest import Digest
from ..oci.errors import RegistryError
from ..oci.platform import Platform
from ..oci.reference import Reference, Repository, parse_reference
from . import atomic_file, files, layout, links


@frozen
class Pin:
    """An image that stays.

    :ivar repository: as the store names it, the registry first.
    :ivar platforms: those for which it is kept up to date; all where there are none.
    """

    repository: Repository
    reference: Reference
    platforms: tuple[Platform, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> Pin | None:
        """None where that is no pin."""
        try:
            fields = json.loads(data)
            return cls(
                Repository.parse(fields["repository"]),
                parse_reference(fields["reference"]),
                tuple(map(Platform.parse, fields["platforms"])),
            )
        except (ValueError, KeyError, TypeError, RegistryError):
            return None

    def __bytes__(self) -> bytes:
        fields = {
            "repository": str(self.repository),
            "reference": str(self.reference),
            "platforms": [str(each) for each in self.platforms],
        }
        return json.dumps(fields).encode()

    def __str__(self) -> str:
        return f"{self.repository}{'@' if isinstance(self.reference, Digest) else ':'}{self.reference}"


def put(root: Path, pin: Pin) -> None:
    """Pins an image, for other platforms than before where it was pinned already; it is to be refreshed.

    :raises OSError: when that cannot be written.
    """
    atomic_file.replace_file(_path(root, pin), bytes(pin), root / layout.WRITING, 0.0)


def remove(root: Path, pin: Pin) -> bool:
    """Whether it was pinned."""
    return files.remove(_path(root, pin))


def pins(root: Path) -> Iterator[tuple[Pin, float]]:
    """What is pinned, and when it was refreshed last, in seconds since the epoch: 0 if never."""
    with suppress(FileNotFoundError):
        for name in sorted(os.listdir(root / layout.PINS)):
            found = atomic_file.read_small_file(root / layout.PINS / name)
            pin = Pin.parse(found.data) if found else None
            if found and pin:
                yield pin, found.modified


def refreshed(root: Path, pin: Pin, now: float) -> None:
    """Notes that it was; unless it is pinned no more, or for other platforms by now."""
    found = atomic_file.read_small_file(_path(root, pin))
    if found is not None and Pin.parse(found.data) == pin:
        with suppress(FileNotFoundError):
            os.utime(_path(root, pin), (now, now))


def manifests(root: Path) -> Iterator[Digest]:
    """The manifests that are pinned, held or not."""
    for pin, _ in pins(root):
        if isinstance(pin.reference, Digest):
            yield pin.reference
        elif tagged := links.read_link(root / layout.current(pin.repository, pin.reference)):
            yield tagged.digest


def lock_refresh(root: Path) -> int | None:
    """An open file that, until it is closed, keeps others from refreshing; None where another has it."""
    return files.lock(root / layout.REFRESHING)


def _path(root: Path, pin: Pin) -> Path:
    return root / layout.pin(str(pin))
