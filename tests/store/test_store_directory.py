"""Whether a directory can hold a store."""

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
    find_file_system,
    is_case_sensitive,
    prepare_directory,
    try_writing,
)

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
def test_file_system(path: str, kind: str) -> None:
    """Is that of the longest mount point above a path; of two on one point, of the later."""
    assert find_file_system(MOUNTS, Path(path)) == kind


def test_no_file_system() -> None:
    """What lies on none that is known, as in some sandboxes, has no type."""
    assert find_file_system("", Path("/")) is None


def test_made(tmp_path: Path) -> None:
    """The directory is made for its owner alone, and those above it where they are not there."""
    root = tmp_path / "var" / "cache"
    prepare_directory(root)
    assert root.stat().st_mode & 0o777 == 0o700
    assert (root.parent.stat().st_mode & 0o777) == 0o777 & ~_umask()
    assert not list((root / layout.TEMPORARY).iterdir())


def test_made_before(tmp_path: Path) -> None:
    """A directory that is there keeps its mode and what it holds."""
    tmp_path.chmod(0o750)
    prepare_directory(tmp_path)
    (tmp_path / layout.DOCUMENTS / "name").touch()
    prepare_directory(tmp_path)
    assert (tmp_path / layout.DOCUMENTS / "name").exists()
    assert tmp_path.stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize("mode", [0o755, 0o777, 0o701])
def test_open_to_everybody(tmp_path: Path, mode: int) -> None:
    """In a directory that everybody may enter the store is its owner's alone, also one that is there."""
    tmp_path.chmod(mode)
    (tmp_path / "docker").mkdir(0o755)
    prepare_directory(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir() if entry.stat().st_mode & 0o077] == []
    assert tmp_path.stat().st_mode & 0o777 == mode


@as_root
def test_open_and_of_another_user() -> None:
    """What cannot be closed is told of in one line."""
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
def test_made_in_anothers(tmp_path: Path) -> None:
    """What root makes in a directory of another user's is that one's."""
    os.chown(tmp_path, 65534, 65533)
    prepare_directory(tmp_path)
    owners = {(path.stat().st_uid, path.stat().st_gid) for path in tmp_path.rglob("*")}
    assert owners == {(65534, 65533)}


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "fuse.sshfs", "afs"])
def test_network(tmp_path: Path, kind: str) -> None:
    """A network file system is refused, in one sentence that says why; also behind a symbolic link."""
    mounts, cache, link = tmp_path / "mounts", tmp_path / "far", tmp_path / "link"
    mounts.write_text(f"1 0 0:1 / / rw - ext4 a rw\n2 1 0:2 / {cache} rw - {kind} b rw\n")
    cache.mkdir()
    link.symlink_to(cache)
    for root in (cache, link, cache / "below"):
        with pytest.raises(UnusableDirectory, match=rf"{root} lies on a network file system \({kind}\)"):
            prepare_directory(root, mounts)
    prepare_directory(tmp_path / "near", mounts)


def test_no_table(tmp_path: Path) -> None:
    """Where the kernel has no table of mounts, everything else is tried all the same."""
    prepare_directory(tmp_path / "cache", tmp_path / "none")


def test_a_file_in_the_way(tmp_path: Path) -> None:
    """What is no directory cannot be written, nor what lies in it."""
    (tmp_path / "file").touch()
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(
            UnusableDirectory, match=rf"{root} cannot be written: (File exists|Not a directory)"
        ):
            prepare_directory(root)


def test_not_to_be_written(tmp_path: Path) -> None:
    """A directory of the kernel's stands for one that nobody may write, root included."""
    with pytest.raises(UnusableDirectory, match="/proc/self/cache cannot be written: No such file"):
        prepare_directory(Path("/proc/self/cache"))


def test_several_file_systems(tmp_path: Path) -> None:
    """What spans several is refused: files get their names by moving."""
    memory = Path("/dev/shm")  # noqa: S108
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is one file system only")
    with tempfile.TemporaryDirectory(dir=memory) as elsewhere:
        (tmp_path / "docker").symlink_to(elsewhere)
        with pytest.raises(UnusableDirectory, match=f"{tmp_path} spans several file systems"):
            prepare_directory(tmp_path)


def test_case(tmp_path: Path) -> None:
    """Whether V1 and v1 are two files is tried; a link stands for a file system that folds case."""
    assert is_case_sensitive(tmp_path)
    (tmp_path / "v1").symlink_to("V1")
    assert not is_case_sensitive(tmp_path)


@pytest.mark.integration
def test_nothing_is_walked(tmp_path: Path) -> None:
    """A start looks at as much in a store of 20,000 files as in an empty one."""
    require("strace")
    root = tmp_path / "store"
    prepare_directory(root)
    looks = looks_at_start(root)
    for beginning in range(100):
        directory = root / layout.BLOBS / "sha256" / f"{beginning:02x}"
        for number in range(100):
            (directory / f"{number:02x}").mkdir(parents=True)
            (directory / f"{number:02x}" / "data").touch()
    repositories = root / layout.REPOSITORIES / "docker.io"
    repositories.mkdir()
    for number in range(10_000):
        (repositories / f"{number:05}").touch()
    assert 0 < looks_at_start(root) == looks < 100


def looks_at_start(root: Path) -> int:
    """How often a process that starts a store asks the kernel for something in its directory."""
    program = (
        "import sys; from pathlib import Path; from twisted.internet import reactor\n"
        "from dockmirror.store.store_directory import prepare_directory\n"
        "from dockmirror.store.local_store import LocalContentStore\n"
        "from dockmirror.store.eviction.eviction import Eviction\n"
        "from dockmirror.store.eviction.budget import Budget\n"
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


def test_what_is_tried_leaves_nothing(tmp_path: Path) -> None:
    """A store that can be written is as it was; one whose directories are gone cannot."""
    prepare_directory(tmp_path)
    try_writing(tmp_path)
    assert list((tmp_path / layout.TEMPORARY).iterdir()) == []
    (tmp_path / layout.TEMPORARY).rmdir()
    with pytest.raises(FileNotFoundError):
        try_writing(tmp_path)
