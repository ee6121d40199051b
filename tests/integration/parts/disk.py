"""A machine with a small disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .machine import NAMES, Machine

_MOUNT = 'mount -t tmpfs -o "size=$1" tests "$2"; shift 2; exec "$@"'


class SmallDisk(Machine):
    """A machine with an empty disk of so many bytes, which ends with its processes."""

    can_fork = False

    def __init__(self, directory: Path, size: int) -> None:
        super().__init__(directory)
        self.disk = directory / "disk"
        self._size = size

    def prepare(self, names: Mapping[str, str] = NAMES) -> None:
        """Write what a machine needs, and make the place for the disk."""
        super().prepare(names)
        self.disk.mkdir()

    def command(self, *command: str) -> list[str]:
        """The command that enters the machine, mounts the disk and becomes *command*."""
        return super().command("sh", "-ec", _MOUNT, "sh", str(self._size), str(self.disk), *command)

    def seen_by(self, pid: int) -> Path:
        """The disk of a process that runs there."""
        return Path(f"/proc/{pid}/root{self.disk}")
