"""Read access of a group to blobs, and to nothing else."""

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
from dockmirror.store.group_access import closed_directories, share_file
from dockmirror.store.local_store import LocalContentStore
from dockmirror.store.store_directory import prepare_directory

from ..answering import now
from .stocked import HERE, read
from .test_store_directory import NOBODY, as_root
from .threads import inline

DATA = os.urandom(100_000)
NAME = layout.data(Digest.of(DATA))
OTHER_GROUP = 54_321


def mode(path: Path) -> int:
    return S_IMODE(path.stat().st_mode)


def shared_directories(root: Path) -> list[Path]:
    """The directories above a blob's file, the root among them."""
    return [root / each for each in NAME.parents]


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_new_store(tmp_path: Path, umask: int) -> None:
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
def test_an_existing_store(tmp_path: Path) -> None:
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
