"""The directory of a store: its checks at start, and the read access of a group to blobs."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from errno import EPERM
from pathlib import Path, PurePosixPath
from stat import S_IMODE

import pytest
from twisted.internet.task import Clock

from dockmirror.interfaces import ContentKind
from dockmirror.oci.digest import Digest
from dockmirror.store import layout
from dockmirror.store.local_store import LocalContentStore
from dockmirror.store.store_directory import (
    UnusableDirectory,
    closed_directories,
    is_case_sensitive,
    prepare_directory,
    share_file,
    try_writing,
)
from dockmirror.system.posix import find_file_system

from ..answering import now
from ..integration.parts.programs import require
from ..stacks import logged
from .stocked import HERE, read
from .threads import inline

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
DATA = os.urandom(100_000)
NAME = layout.data(Digest.of(DATA))
OTHER_GROUP = 54_321

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
    """A start makes as many calls with 2,000 files as with none."""
    require("strace")
    root = tmp_path / "store"
    prepare_directory(root)
    looks = calls_at_start(root)
    for beginning in range(20):
        directory = root / layout.BLOBS / "sha256" / f"{beginning:02x}"
        for number in range(50):
            (directory / f"{number:02x}").mkdir(parents=True)
            (directory / f"{number:02x}" / "data").touch()
    repositories = root / layout.REPOSITORIES / "docker.io"
    repositories.mkdir()
    for number in range(1_000):
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


def mode(path: Path) -> int:
    return S_IMODE(path.stat().st_mode)


def shared_directories(root: Path) -> list[Path]:
    """The directories above a blob's file, the root among them."""
    return [root / each for each in NAME.parents]


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_store_that_a_group_reads(tmp_path: Path, umask: int) -> None:
    """The group enters the directories of blobs and reads those that are opened, whatever the umask is."""
    root, group = tmp_path / "cache", os.getgid()
    before = os.umask(umask)
    try:
        prepare_directory(root, group=group)
        contents = LocalContentStore(root, Clock(), inline, group=group)
        now(contents.add(HERE, Digest.of(DATA), ContentKind.BLOB, DATA))
        opened = now(contents.open(HERE, Digest.of(DATA), ContentKind.BLOB))
    finally:
        os.umask(before)
    assert opened is not None
    opened.close()
    assert mode(root / NAME) == 0o640
    assert [mode(each) for each in shared_directories(root)] == [0o750] * 8
    assert mode(root / layout.REPOSITORIES) == mode(root / layout.TEMPORARY.parent) == 0o700


@as_root
def test_an_existing_store_that_a_group_reads(tmp_path: Path) -> None:
    """Files and directories that were private, or belong to another group, are given to the group."""
    prepare_directory(tmp_path)
    now(LocalContentStore(tmp_path, Clock(), inline).add(HERE, Digest.of(DATA), ContentKind.BLOB, DATA))
    for each in (tmp_path / NAME, *shared_directories(tmp_path)):
        each.chmod(0o700)
    prepare_directory(tmp_path, group=OTHER_GROUP)
    share_file(tmp_path / layout.BLOBS, NAME.relative_to(layout.BLOBS), OTHER_GROUP)
    for each in (tmp_path / NAME, *shared_directories(tmp_path)):
        assert each.stat().st_gid == OTHER_GROUP
    assert mode(tmp_path / NAME) == 0o640
    assert (tmp_path / layout.REPOSITORIES).stat().st_gid == os.getgid()


def test_a_directory_that_others_may_enter(tmp_path: Path) -> None:
    """Nobody but the group may enter it from then on."""
    tmp_path.chmod(0o755)
    prepare_directory(tmp_path, group=os.getgid())
    assert mode(tmp_path) == mode(tmp_path / layout.BLOBS) == 0o750


def test_a_missing_file_is_not_shared(tmp_path: Path) -> None:
    prepare_directory(tmp_path)
    with pytest.raises(FileNotFoundError):
        share_file(tmp_path / layout.BLOBS, PurePosixPath("sha256/ab/absent/data"), os.getgid())


def test_files_of_another_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: list[str]) -> None:
    """Blobs that cannot be given to the group are served by the mirror; the log says so once."""

    def refuse(path: Path, *_: int) -> None:
        raise PermissionError(EPERM, "Operation not permitted", str(path))

    prepare_directory(tmp_path)
    contents = LocalContentStore(tmp_path, Clock(), inline, group=OTHER_GROUP)
    now(contents.add(HERE, Digest.of(DATA), ContentKind.BLOB, DATA))
    monkeypatch.setattr(os, "chown", refuse)
    for _ in range(3):
        opened = now(contents.open(HERE, Digest.of(DATA), ContentKind.BLOB))
        assert now(read(opened)) == DATA
    (line,) = log
    assert "blobs/sha256 cannot be given to the group of 'cache_group'" in line
    assert "Operation not permitted. Run the mirror as the owner of its cache" in line


TRIAL = """
import os, sys
from pathlib import Path
from dockmirror.store.store_directory import UnusableDirectory, prepare_directory
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    prepare_directory(Path(sys.argv[1]), group=54321)
except UnusableDirectory as error:
    print(error)
"""


@as_root
def test_a_group_that_the_mirror_does_not_belong_to() -> None:
    """The message names the directory, the setting and what to do."""
    with tempfile.TemporaryDirectory() as name:
        os.chown(name, NOBODY, NOBODY)
        command = [sys.executable, "-c", TRIAL, name]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603
    assert said == (
        f"{name} cannot be given to the group of 'cache_group': run the mirror as the owner of its cache,"
        " and as a member of that group\n"
    )


def test_closed_directories(tmp_path: Path) -> None:
    """A directory is closed to members of the group by its mode: for the group if it is the group's."""
    outer, inner = tmp_path / "outer", tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    group = os.getgid()
    cases = {(0o755, 0o755): [], (0o750, 0o755): [], (0o700, 0o755): [outer], (0o705, 0o700): [inner, outer]}
    for (outer_mode, inner_mode), closed in cases.items():
        inner.chmod(inner_mode)
        outer.chmod(outer_mode)
        found = [
            each
            for each in closed_directories(inner / "absent" / "cache", group)
            if each.is_relative_to(outer)
        ]
        assert found == closed
    outer.chmod(0o710)
    inner.chmod(0o751)
    found = [each for each in closed_directories(inner / "cache", OTHER_GROUP) if each.is_relative_to(outer)]
    assert found == [outer]
