"""Checks of a store's directory at start."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from dockmirror.store import layout
from dockmirror.store.store_directory import (
    UnusableDirectory,
    is_case_sensitive,
    prepare_directory,
    try_writing,
)
from dockmirror.system.posix import find_file_system

from ..integration.parts.programs import require
from ..stacks import logged

MOUNTS = r"""
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
23 22 0:21 / /proc rw,nosuid shared:5 - proc proc rw
30 22 0:40 / /srv rw,relatime shared:9 master:2 - xfs /dev/sdb rw
31 30 0:41 / /srv/nfs rw,relatime - nfs4 server:/export rw,vers=4.2
32 31 0:42 / /srv/nfs/local rw - ext4 /dev/sdc rw
33 22 0:43 / /mnt/with\040space rw - fuse.sshfs me@host: rw
34 22 0:44 / /twice rw - cifs //server/share rw
35 22 0:45 / /twice rw - btrfs /dev/sdd rw
36 22 0:46 / /again rw - ext4 /dev/sde rw
37 36 0:47 / /again rw - 9p share rw
""".lstrip()

NOBODY = 65534

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/var/cache/dockmirror", "ext4"),
        ("/srv", "xfs"),
        ("/srv/nfsserver", "xfs"),
        ("/srv/nfs", "nfs4"),
        ("/srv/nfs/cache", "nfs4"),
        ("/srv/nfs/local/cache", "ext4"),
        ("/mnt/with space/cache", "fuse.sshfs"),
        ("/mnt/with", "ext4"),
        ("/twice/cache", "btrfs"),
        ("/again/cache", "9p"),
    ],
)
def test_find_file_system(path: str, kind: str) -> None:
    """The longest mount point above a path counts; of two mounts on one point the later does."""
    assert find_file_system(MOUNTS, Path(path)) == kind
    assert find_file_system("", Path(path)) is None


def test_new_directory(tmp_path: Path) -> None:
    """A new directory and its parents are private to their owner."""
    root = tmp_path / "var" / "cache"
    prepare_directory(root)
    assert root.stat().st_mode & 0o777 == 0o700
    assert (root.parent.stat().st_mode & 0o777) == 0o777 & ~_umask()
    assert not list((root / layout.TEMPORARY).iterdir())


@pytest.mark.parametrize("mode", [0o755, 0o777, 0o701, 0o750])
def test_existing_directory(tmp_path: Path, mode: int) -> None:
    """An existing directory keeps its mode and contents; if others may enter it, the store is private."""
    tmp_path.chmod(mode)
    (tmp_path / "docker").mkdir(0o755)
    prepare_directory(tmp_path)
    (tmp_path / layout.DOCUMENTS / "name").touch()
    prepare_directory(tmp_path)
    assert (tmp_path / layout.DOCUMENTS / "name").exists()
    assert tmp_path.stat().st_mode & 0o777 == mode
    if mode & 0o007:
        assert [entry.name for entry in tmp_path.iterdir() if entry.stat().st_mode & 0o077] == []


@as_root
def test_directory_of_another_user() -> None:
    """A directory that cannot be made private is logged once."""
    with tempfile.TemporaryDirectory() as directory, logged() as texts:
        root = Path(directory)
        root.chmod(0o777)
        prepare_directory(root)
        (root / "docker").chmod(0o777)
        for made in (root / "dockmirror", *(root / "dockmirror").iterdir()):
            os.chown(made, NOBODY, NOBODY)
        os.seteuid(NOBODY)
        try:
            prepare_directory(root)
        finally:
            os.seteuid(0)
    assert len(texts) == 1
    assert (
        f"others may read {root / 'docker'}, which belongs to another user: set its mode to 0700" in texts[0]
    )


@as_root
def test_root_keeps_the_owner(tmp_path: Path) -> None:
    """A directory that root makes belongs to the owner of its parent."""
    os.chown(tmp_path, 65534, 65533)
    prepare_directory(tmp_path)
    owners = {(path.stat().st_uid, path.stat().st_gid) for path in tmp_path.rglob("*")}
    assert owners == {(65534, 65533)}


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "fuse.sshfs", "afs"])
def test_network_file_system(tmp_path: Path, kind: str) -> None:
    """A network file system is refused with a sentence that says why, also behind a symbolic link."""
    mounts, cache, link = tmp_path / "mounts", tmp_path / "remote", tmp_path / "link"
    mounts.write_text(f"1 0 0:1 / / rw - ext4 a rw\n2 1 0:2 / {cache} rw - {kind} b rw\n")
    cache.mkdir()
    link.symlink_to(cache)
    for root in (cache, link, cache / "below"):
        with pytest.raises(UnusableDirectory, match=rf"{root} lies on a network file system \({kind}\)"):
            prepare_directory(root, mounts)
    prepare_directory(tmp_path / "local", mounts)
    prepare_directory(cache, tmp_path / "no table of mounts")


def test_unwritable_directory(tmp_path: Path) -> None:
    """A path that is not a directory, lies below a file, or is read-only even for root, is refused."""
    (tmp_path / "file").touch()
    for root in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/self/cache")):
        with pytest.raises(
            UnusableDirectory,
            match=rf"{root} (is not a directory|cannot be written: (Not a directory|No such file))",
        ):
            prepare_directory(root)


def test_several_file_systems(tmp_path: Path) -> None:
    """A directory that spans several file systems is refused."""
    memory = Path("/dev/shm")  # noqa: S108
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is one file system only")
    with tempfile.TemporaryDirectory(dir=memory) as elsewhere:
        (tmp_path / "docker").symlink_to(elsewhere)
        with pytest.raises(UnusableDirectory, match=f"{tmp_path} spans several file systems"):
            prepare_directory(tmp_path)


def test_case_sensitivity(tmp_path: Path) -> None:
    """Case sensitivity is tried; a link stands in for a file system that ignores case."""
    assert is_case_sensitive(tmp_path)
    (tmp_path / "v1").symlink_to("V1")
    assert not is_case_sensitive(tmp_path)


@pytest.mark.integration
def test_no_scan_at_start(tmp_path: Path) -> None:
    """A start makes as many calls with 20,000 files as with none."""
    require("strace")
    root = tmp_path / "store"
    prepare_directory(root)
    looks = calls_at_start(root)
    for beginning in range(100):
        directory = root / layout.BLOBS / "sha256" / f"{beginning:02x}"
        for number in range(100):
            (directory / f"{number:02x}").mkdir(parents=True)
            (directory / f"{number:02x}" / "data").touch()
    repositories = root / layout.REPOSITORIES / "docker.io"
    repositories.mkdir()
    for number in range(10_000):
        (repositories / f"{number:05}").touch()
    assert 0 < calls_at_start(root) == looks < 100


def calls_at_start(root: Path) -> int:
    """Return how often a starting process asks the kernel for something in the directory."""
    program = (
        "import sys; from pathlib import Path; from twisted.internet import reactor\n"
        "from dockmirror.store.store_directory import prepare_directory\n"
        "from dockmirror.store.local_store import LocalContentStore\n"
        "from dockmirror.store.eviction.eviction import Eviction\n"
        "from dockmirror.store.eviction.store_budget import Budget\n"
        "root = Path(sys.argv[1]); prepare_directory(root); LocalContentStore(root, reactor, None)\n"
        "Eviction(root, reactor, None, Budget(1)).start()"
    )
    traced = root.parent / "traced"
    command = ["strace", "-f", "-y", "-s", "1000", "-o", str(traced), "-e", "trace=%file,%desc"]
    subprocess.run([*command, sys.executable, "-c", program, str(root)], check=True)  # noqa: S603
    return sum(f"{root}" in line and "execve" not in line for line in traced.read_text().splitlines())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_try_writing(tmp_path: Path) -> None:
    """The trial leaves nothing behind, and fails if directories are missing."""
    prepare_directory(tmp_path)
    try_writing(tmp_path)
    assert list((tmp_path / layout.TEMPORARY).iterdir()) == []
    (tmp_path / layout.TEMPORARY).rmdir()
    with pytest.raises(FileNotFoundError):
        try_writing(tmp_path)
