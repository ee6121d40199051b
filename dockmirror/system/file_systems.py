"""Types of file systems, from the kernel's table of mounts."""

from __future__ import annotations

import re
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
_NETWORK_TYPES = (
    "9p", "acfs", "afs", "beegfs", "ceph", "cifs", "coda", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs",
    "nfs", "nfs4", "ocfs2", "orangefs", "pvfs2", "smb2", "smb3", "smbfs", "fuse.ceph", "fuse.davfs",
    "fuse.gcsfuse", "fuse.glusterfs", "fuse.goofys", "fuse.juicefs", "fuse.rclone", "fuse.s3fs",
    "fuse.seaweedfs", "fuse.sshfs",
)  # fmt: skip
_ESCAPED = re.compile(r"\\([0-7]{3})")


def find_file_system(mounts: str, path: Path) -> str | None:
    """Return the type of the file system that a resolved path lies on, from the kernel's table of mounts."""
    depth, file_system = -1, None
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        point = Path(_ESCAPED.sub(lambda match: chr(int(match[1], 8)), before.split(" ")[4]))
        if path.is_relative_to(point) and len(point.parts) >= depth:  # a later mount hides an earlier one
            depth, file_system = len(point.parts), after.split(" ")[0]
    return file_system


def find_network_file_system(directory: Path, mounts: Path = MOUNTS) -> str | None:
    """Return the type of the network file system that a directory lies on; None if it is on a local one."""
    if not mounts.exists():
        return None
    kind = find_file_system(mounts.read_text("utf-8", "surrogateescape"), directory.resolve())
    return kind if kind in _NETWORK_TYPES else None
