"""A process that is killed at any step serves nothing wrong afterwards and has lost nothing.

For each call to the operating system that the work makes, except those that only read, a child is forked
that kills itself with SIGKILL right before that call. What it leaves must serve nothing wrong and have lost
nothing; and the work, done again, must succeed. The tests run this module in a process of its own, which
forks the children.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from attrs import frozen
from twisted.internet.task import Clock

from dockmirror.interfaces import ContentKind
from dockmirror.oci.digest import Descriptor, Digest
from dockmirror.oci.request import Repository, Tag
from dockmirror.store import files, layout
from dockmirror.store.downloads.context import DownloadContext
from dockmirror.store.downloads.downloads import Downloads
from dockmirror.store.eviction.eviction import Sweep
from dockmirror.store.eviction.removal import delete_abandoned
from dockmirror.store.eviction.store_budget import Budget
from dockmirror.store.store_directory import prepare_directory
from dockmirror.store.store_files import iter_links

from ..answering import now
from ..integration.parts.programs import require
from .downloads.upstream import REGISTRY, Client, Source, Upstream
from .stocked import ELSEWHERE, HERE, LATEST, Stocked, manifest_of, read, read_tag
from .threads import inline

OLD, NEW, KEPT = b"old " * 300, b"new " * 300, b"kept " * 300
OLD_DIGEST, NEW_DIGEST, KEPT_DIGEST = map(Digest.of, (OLD, NEW, KEPT))
OLD_IMAGE, KEPT_IMAGE = (Digest.of(manifest_of(digest)) for digest in (OLD_DIGEST, KEPT_DIGEST))
PART, NEW_DATA = layout.growing("docker.io", NEW_DIGEST), layout.data(NEW_DIGEST)
METADATA = layout.growing_size(REGISTRY, NEW_DIGEST)
ROOT = Path(__file__).parents[2]
MEMORY = Path("/dev/shm")  # noqa: S108
_CALL = re.compile(r'(?P<name>fsync|rename|unlink)\((?:\d+<)?"?(?P<path>[^">]+)[">](?:, "(?P<to>[^"]+)")?')
_READING = {
    "close", "fspath", "fstat", "geteuid", "getpid", "listdir", "lstat", "pread", "preadv", "scandir", "stat",
    "statvfs", "urandom",
}  # fmt: skip
"""Calls before which a kill leaves what one before the next call leaves."""
Step = Callable[[Stocked], object]
Check = Callable[[Stocked], bool]


@frozen
class Work:
    """Work during which the process is killed.

    :ivar before: prepares the store.
    :ivar step: the work.
    :ivar done: reports whether it is done.
    :ivar safe: what must hold whether it is done or not.
    """

    before: Step
    step: Step
    done: Check
    safe: Check = lambda store: True


def serves(
    store: Stocked, data: bytes, kind: ContentKind = ContentKind.BLOB, place: Repository = HERE
) -> bool:
    """Report whether a content is served; serving anything else is a failure."""
    found = now(read(now(store.contents.open(place, Digest.of(data), kind))))
    assert found in (None, data), f"served {found!r} for {data!r}"
    return found is not None


def before(store: Stocked) -> None:
    """Store an image that must survive."""
    store.image(store.blob(KEPT, age=0), age=0, tag="kept")


def _old(store: Stocked) -> None:
    store.blob(OLD)
    now(store.tags.put(HERE, LATEST, store.image(OLD_DIGEST)))
    now(store.documents.write("name", OLD))


def _damaged(store: Stocked) -> None:
    store.blob(NEW)
    (store.root / layout.data(NEW_DIGEST)).write_bytes(OLD)


def _arrived(store: Stocked) -> None:
    (store.root / PART).parent.mkdir(parents=True)
    (store.root / PART).write_bytes(NEW)


def _finish(store: Stocked) -> None:
    if (store.root / PART).exists():
        files.publish(store.root / PART, store.root / NEW_DATA)
    assert now(store.contents.link(HERE, NEW_DIGEST, ContentKind.BLOB))


def _abandoned(store: Stocked) -> None:
    for path in (PART, layout.growing_size("docker.io", NEW_DIGEST), layout.TEMPORARY / "1-2"):
        (store.root / path).parent.mkdir(parents=True, exist_ok=True)
        (store.root / path).write_bytes(NEW)
        os.utime(store.root / path, (0, 0))


def _nothing(store: Stocked) -> None:
    """Store nothing."""


def _old_is_there(store: Stocked) -> bool:
    return serves(store, OLD) and read_tag(store.tags, LATEST) in (OLD_IMAGE, KEPT_IMAGE)


def _is_old_or_new(store: Stocked) -> bool:
    return now(store.documents.read("name")) in (OLD, NEW)


def _download(store: Stocked) -> None:
    """Read a blob whose upstream breaks off once; nothing that is there is fetched again."""
    upstream, clock = Upstream(NEW), Clock()
    there = [path.stat().st_size for path in (store.root / PART, store.root / NEW_DATA) if path.exists()]
    downloads = Downloads(DownloadContext(store.root, store.contents, clock, inline))
    reader = now(downloads.join(REGISTRY, HERE, NEW_DIGEST, Source(upstream)))
    client = Client().read(reader, Descriptor(size=len(NEW)))
    if upstream.running:
        upstream.running.advance(100).break_off()
        clock.advance(0)
    if upstream.running:
        upstream.running.finish()
    assert (client.data, client.outcome) == (NEW, True)
    assert upstream.sent == len(NEW) - max(there, default=0)


def _is_downloaded(store: Stocked) -> bool:
    """Report whether the blob is served, and nothing is left over."""
    return serves(store, NEW) and not [path for path in (PART, METADATA) if (store.root / path).exists()]


WORKS: dict[str, Work] = {
    "add": Work(
        _nothing,
        lambda s: now(s.contents.add(HERE, NEW_DIGEST, ContentKind.MANIFEST, NEW)),
        lambda s: serves(s, NEW, ContentKind.MANIFEST),
    ),
    "add elsewhere": Work(
        _old,
        lambda s: now(s.contents.add(ELSEWHERE, OLD_DIGEST, ContentKind.BLOB, OLD)),
        lambda s: serves(s, OLD, place=ELSEWHERE),
        _old_is_there,
    ),
    "add over what is damaged": Work(
        _damaged,
        lambda s: now(s.contents.add(HERE, NEW_DIGEST, ContentKind.BLOB, NEW)),
        lambda s: serves(s, NEW),
    ),
    "open what is damaged": Work(
        _damaged,
        lambda s: serves(s, NEW),
        lambda s: not serves(s, NEW),
    ),
    "link": Work(
        _old,
        lambda s: now(s.contents.link(ELSEWHERE, OLD_DIGEST, ContentKind.BLOB)),
        lambda s: serves(s, OLD, place=ELSEWHERE),
        _old_is_there,
    ),
    "finish": Work(
        _arrived,
        _finish,
        lambda s: serves(s, NEW),
        lambda s: (
            NEW in [(s.root / path).read_bytes() for path in (PART, NEW_DATA) if (s.root / path).exists()]
        ),
    ),
    "download": Work(_nothing, _download, _is_downloaded),
    "tag": Work(
        _nothing,
        lambda s: now(s.tags.put(HERE, LATEST, KEPT_IMAGE)),
        lambda s: read_tag(s.tags, LATEST) == KEPT_IMAGE,
    ),
    "tag another": Work(
        _old,
        lambda s: now(s.tags.put(HERE, LATEST, KEPT_IMAGE)),
        lambda s: read_tag(s.tags, LATEST) == KEPT_IMAGE,
        _old_is_there,
    ),
    "forget": Work(
        _old,
        lambda s: now(s.tags.forget(HERE, LATEST)),
        lambda s: read_tag(s.tags, LATEST) is None,
        lambda s: serves(s, OLD),
    ),
    "write": Work(
        _old,
        lambda s: now(s.documents.write("name", NEW)),
        lambda s: now(s.documents.read("name")) == NEW,
        lambda s: _is_old_or_new(s) and _old_is_there(s),
    ),
    "evict": Work(
        _old,
        lambda s: Sweep(s.root, Budget(0)).run(0, s.clock.seconds()),
        lambda s: not serves(s, OLD) and read_tag(s.tags, LATEST) is None,
    ),
    "drop leftovers": Work(
        _abandoned,
        lambda s: delete_abandoned(s.root, s.clock.seconds()),
        lambda s: not [path for path in s.root.glob("dockmirror/*/**/*") if path.is_file()],
    ),
    "start": Work(
        _nothing,
        lambda s: prepare_directory(s.root),
        lambda s: all((s.root / path).is_dir() for path in (layout.TEMPORARY, layout.DOCUMENTS)),
    ),
}


def check(store: Stocked, work: Work) -> None:
    """Check that everything stored is right and that links are not dangling.

    :raises AssertionError: if not.
    """
    damaged = work.before is _damaged
    found = [Path(directory, name) for directory, _, names in os.walk(store.root) for name in names]
    for link in (path for path in found if path.name == "link"):
        digest = Digest.parse(link.read_text())
        assert link.parent.name in ("current", digest.hex)
        assert damaged or (store.root / layout.data(digest)).exists(), f"{link} leads nowhere"
        if link.parent.name == "current":
            assert digest in set(iter_links(link.parents[3] / "revisions")), f"{link} names no revision"
    for path in (path for path in found if path.name == "data"):
        assert damaged or Digest.of(path.read_bytes()).hex == path.parent.name
    assert serves(store, KEPT)
    assert read_tag(store.tags, Tag("kept")) == KEPT_IMAGE
    assert work.safe(store)


def killed(root: Path, work: Work, number: int) -> bool:
    """Run the work with a kill at this call; report whether the work makes so many calls."""
    child = os.fork()
    if child == 0:
        sys.setprofile(_Killer(number))
        work.step(Stocked(root))
        sys.setprofile(None)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert status == 0
    return False


class _Killer:
    """Kills the process right before its n-th call that may change the disk."""

    def __init__(self, number: int) -> None:
        self._left = number

    def __call__(self, frame: FrameType, event: str, call: Any) -> None:
        if event == "c_call" and call.__module__ in ("posix", "fcntl") and call.__name__ not in _READING:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def kill_at_each_call(work: Work, directory: Path) -> int:
    """Run the work with a kill at each call; return the number of kills."""
    template = directory / "template"
    template.mkdir(parents=True)
    before(Stocked(template))
    work.before(Stocked(template))
    for number in count(1):
        root = directory / str(number)
        shutil.copytree(template, root)
        was_killed = killed(root, work, number)
        store = Stocked(root)
        check(store, work)
        if was_killed:
            work.step(store)
            check(store, work)
        assert work.done(store)
        shutil.rmtree(root)
        if not was_killed:
            return number - 1
    raise AssertionError


def main(directory: Path) -> dict[str, int | str]:
    """Return of each work the number of kills, or the traceback of its failure."""
    results: dict[str, int | str] = {}
    for name, work in WORKS.items():
        try:
            results[name] = kill_at_each_call(work, directory / name)
        except Exception:
            results[name] = traceback.format_exc()
    return results


def run(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def results() -> dict[str, int | str]:
    """The results of all works, by one process: importing the store takes longer than most of them."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as directory:
        found: dict[str, int | str] = json.loads(
            run(sys.executable, "-m", "tests.store.test_crash", directory)
        )
        return found


@pytest.mark.parametrize("name", WORKS)
def test_killed_at_each_step(name: str, results: dict[str, int | str]) -> None:
    """The process is killed with SIGKILL before each call that may change the disk."""
    kills = results[name]
    assert isinstance(kills, int), kills
    assert kills >= (30 if name == "download" else 4)


@pytest.mark.integration
def test_power_failure(tmp_path: Path) -> None:
    """A file is synced before it is renamed, and its directory before the next file is renamed."""
    require("strace")
    program = (
        "import sys; from pathlib import Path; from tests.store.stocked import Stocked\n"
        "store = Stocked(Path(sys.argv[1])); store.image(store.blob(b'layer'), tag='latest')"
    )
    traced = str(tmp_path / "traced")
    strace = ("strace", "-y", "-s", "1000", "-o", traced, "-e", "trace=fsync,rename,unlink")
    run(*strace, sys.executable, "-c", program, str(tmp_path / "store"))
    calls = [match for line in Path(traced).read_text().splitlines() if (match := _CALL.match(line))]
    named = [call for call in calls if call["name"] == "rename" and call["path"].startswith(str(tmp_path))]
    assert [Path(call["to"]).name for call in named] == ["data", "link", "data", "link", "link", "link"]
    for number, call in enumerate(named):
        earlier = calls[: calls.index(call)]
        later = calls[calls.index(call) + 1 :]
        later = later[: later.index(named[number + 1])] if number + 1 < len(named) else later
        assert ("fsync", call["path"]) in [(each["name"], each["path"]) for each in earlier]
        directory = str(Path(call["to"]).parent)
        assert ("fsync", directory) in [(each["name"], each["path"]) for each in later]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]))))
