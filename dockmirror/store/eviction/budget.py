"""How much may be held."""

from __future__ import annotations

import os

from attrs import frozen

_DEFAULT_SHARE = 5
_DEFAULT_MOST = 100 * 10**9


@frozen
class Shortfall:
    """What has to go: bytes, and files and directories."""

    bytes: int = 0
    inodes: int = 0

    def __bool__(self) -> bool:
        return self.bytes > 0 or self.inodes > 0

    def __sub__(self, freed: Shortfall) -> Shortfall:
        return Shortfall(self.bytes - freed.bytes, self.inodes - freed.inodes)


@frozen
class Budget:
    """How many bytes may be held, and what must stay free on the file system, whoever fills it."""

    size: int
    free_bytes: int = 0
    free_inodes: int = 0

    @classmethod
    def default(cls, status: os.statvfs_result) -> Budget:
        """A fifth of the file system, at most 100 GB, and a fifth kept free."""
        size = status.f_blocks * status.f_frsize // _DEFAULT_SHARE
        return cls(min(size, _DEFAULT_MOST), size, status.f_files // _DEFAULT_SHARE)

    def shortfall(self, held: int, status: os.statvfs_result) -> Shortfall:
        """What has to go, so that a tenth of each measure is spare; nothing while all are kept."""
        size = held - self.size * 9 // 10 if held > self.size else 0
        free = _lacking(status.f_bavail * status.f_frsize, self.free_bytes)
        # btrfs and others have no fixed number of inodes, and say that they have none at all.
        inodes = _lacking(status.f_favail, self.free_inodes) if status.f_files else 0
        return Shortfall(max(size, free), inodes)


def _lacking(free: int, wanted: int) -> int:
    return wanted * 11 // 10 - free if free < wanted else 0
