"""Contents, tags and documents on a disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from errno import EIO, EPERM
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from dockmirror.interfaces import ContentKind, TagEntry
from dockmirror.oci.digest import Digest
from dockmirror.store import layout, local_store
from dockmirror.store.local_store import REREAD_INTERVAL, LocalContentStore, LocalTagStore
from dockmirror.store.store_files import verify_or_delete

from ..answering import now, watch
from .downloads.upstream import all_closed, full
from .stocked import (
    DATA,
    DIGEST,
    ELSEWHERE,
    EPOCH,
    HERE,
    LARGE,
    LARGE_DIGEST,
    LATEST,
    Stocked,
    read,
)
from .threads import HeldThreads, inline

DATA_FILE = f"docker/registry/v2/blobs/sha256/{DIGEST.hex[:2]}/{DIGEST.hex}/data"
REPOSITORY = "docker/registry/v2/repositories/docker.io/library/busybox"


def files_of(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_tree(store: Stocked) -> None:
    """The directory holds what an ordinary registry would have written; a removed tag leaves nothing."""
    now(store.contents.add(HERE, DIGEST, ContentKind.MANIFEST, DATA))
    now(store.contents.link(HERE, DIGEST, ContentKind.BLOB))
    before = sorted(store.root.rglob("*"))
    now(store.tags.put(HERE, LATEST, DIGEST))
    link = f"sha256:{DIGEST.hex}".encode()
    assert files_of(store.root) == {
        DATA_FILE: DATA,
        f"{REPOSITORY}/_layers/sha256/{DIGEST.hex}/link": link,
        f"{REPOSITORY}/_manifests/revisions/sha256/{DIGEST.hex}/link": link,
        f"{REPOSITORY}/_manifests/tags/latest/current/link": link,
        f"{REPOSITORY}/_manifests/tags/latest/index/sha256/{DIGEST.hex}/link": link,
    }
    now(store.tags.put(HERE, LATEST, LARGE_DIGEST))
    now(store.tags.forget(HERE, LATEST))
    assert sorted(store.root.rglob("*")) == before


MALFORMED = {
    "empty": b"",
    "a line": f"sha256:{DIGEST.hex}\n".encode(),
    "half": f"sha256:{DIGEST.hex[:30]}".encode(),
    "another": str(LARGE_DIGEST).encode(),
    "no text": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("link", MALFORMED.values(), ids=MALFORMED)
def test_malformed_links(store: Stocked, link: bytes) -> None:
    """A malformed link counts as missing and is replaced by the next write."""
    now(store.contents.add(HERE, DIGEST, ContentKind.BLOB, DATA))
    now(store.contents.add(HERE, LARGE_DIGEST, ContentKind.BLOB, LARGE))
    now(store.tags.put(HERE, LATEST, DIGEST))
    path = store.root / layout.link(HERE, DIGEST, ContentKind.BLOB)
    for each in (path, store.root / layout.tag_link(HERE, LATEST)):
        each.write_bytes(link)
    assert now(store.contents.open(HERE, DIGEST, ContentKind.BLOB)) is None
    assert now(store.contents.link(HERE, DIGEST, ContentKind.BLOB))
    assert path.read_text() == str(DIGEST)
    assert (now(store.tags.get(HERE, LATEST)) is None) == (link != MALFORMED["another"])
    now(store.tags.put(HERE, LATEST, DIGEST))
    assert now(store.tags.get(HERE, LATEST)) is not None


def test_directories_in_the_way(store: Stocked) -> None:
    """A directory is no content, link, tag or document, and cannot be replaced by one."""
    link = store.root / layout.link(HERE, DIGEST, ContentKind.BLOB)
    for path in (
        layout.data(DIGEST),
        layout.link(HERE, LARGE_DIGEST, ContentKind.BLOB),
        layout.tag_link(HERE, LATEST),
        layout.document("name"),
        link.parent,
    ):
        (store.root / path).mkdir(parents=True)
    now(store.contents.add(ELSEWHERE, LARGE_DIGEST, ContentKind.BLOB, LARGE))
    link.write_text(str(DIGEST))
    assert not now(store.contents.holds(DIGEST))
    for digest in (DIGEST, LARGE_DIGEST):
        assert now(store.contents.open(HERE, digest, ContentKind.BLOB)) is None
        assert not now(store.contents.link(HERE, digest, ContentKind.BLOB))
    with pytest.raises(IsADirectoryError):
        now(store.contents.add(HERE, DIGEST, ContentKind.BLOB, DATA))
    now(store.tags.put(HERE, LATEST, DIGEST))
    assert now(store.tags.get(HERE, LATEST)) is None
    now(store.documents.write("name", b"text"))
    assert now(store.documents.read("name")) is None
    assert not list((store.root / layout.TEMPORARY).iterdir())


@pytest.mark.parametrize("data", [DATA, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("is_empty", [True, False])
def test_missing_files(store: Stocked, data: bytes, is_empty: bool) -> None:
    """A link without bytes, or to an empty file, opens nothing until the bytes are back."""
    digest = Digest.of(data)
    path = store.root / layout.data(digest)
    now(store.contents.add(HERE, digest, ContentKind.BLOB, data))
    if is_empty:
        os.truncate(path, 0)
    else:
        path.unlink()
    assert not now(store.contents.holds(digest))
    assert not now(store.contents.link(ELSEWHERE, digest, ContentKind.BLOB))
    assert now(store.contents.open(HERE, digest, ContentKind.BLOB)) is None
    now(store.contents.add(ELSEWHERE, digest, ContentKind.BLOB, data))
    assert now(read(now(store.contents.open(HERE, digest, ContentKind.BLOB)))) == data


@pytest.mark.parametrize("kind", ContentKind)
@pytest.mark.parametrize("data", [DATA, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("is_open", [True, False], ids=["opened before", "never opened"])
def test_corrupt_contents(store: Stocked, kind: ContentKind, data: bytes, is_open: bool) -> None:
    """A corrupt content of any size is not served but deleted, and can be replaced."""
    digest = Digest.of(data)
    path = store.root / layout.data(digest)
    for damaged in (data[:-1], data[:-1] + b"?", data + b"?"):
        now(store.contents.add(HERE, digest, kind, data))
        if is_open:
            assert now(read(now(store.contents.open(HERE, digest, kind)))) == data
        path.write_bytes(damaged)
        assert now(store.contents.open(HERE, digest, kind)) is None
        assert not now(store.contents.holds(digest))
        assert not path.exists()


@pytest.mark.parametrize("data", [DATA, LARGE], ids=["small", "large"])
def test_use_is_recorded(store: Stocked, data: bytes) -> None:
    """A use is recorded in the modification time at most once a minute, also if that was in the future."""
    digest = Digest.of(data)
    path = store.root / layout.data(digest)
    now(store.contents.add(HERE, digest, ContentKind.BLOB, data))

    def used() -> int:
        opened = now(store.contents.open(HERE, digest, ContentKind.BLOB))
        assert opened is not None
        opened.close()
        return int(path.stat().st_mtime)  # the rest is the seal

    assert used() == EPOCH
    store.clock.advance(59)
    assert used() == EPOCH
    store.clock.advance(2)
    assert used() == EPOCH + 61
    os.utime(path, (EPOCH + 1000, EPOCH + 1000))
    assert used() == EPOCH + 61


def test_changed_during_verification(store: Stocked, monkeypatch: pytest.MonkeyPatch) -> None:
    """A content that is changed while it is verified is not sealed."""
    digest = Digest.of(LARGE)
    path = store.root / layout.data(digest)
    now(store.contents.add(HERE, digest, ContentKind.BLOB, LARGE))

    def read(data: Path, file: int, expected: Digest) -> None:
        verify_or_delete(data, file, expected)
        path.write_bytes(b"something else" + LARGE)

    monkeypatch.setattr(local_store, "verify_or_delete", read)
    assert now(store.contents.open(HERE, digest, ContentKind.BLOB)) is None
    assert not path.exists()


@pytest.mark.parametrize("group", [None, os.getgid()])
@pytest.mark.parametrize("error", [None, PermissionError(EPERM, "another user's file")])
def test_contents_that_cannot_be_sealed(
    store: Stocked, monkeypatch: pytest.MonkeyPatch, error: OSError | None, group: int | None
) -> None:
    """A content that keeps no seal is verified once, and again after it was written to."""
    digest, verified, set_time = Digest.of(LARGE), list[Path](), os.utime
    path = store.root / layout.data(digest)
    contents = LocalContentStore(store.root, store.clock, inline, group=group)
    now(contents.add(HERE, digest, ContentKind.BLOB, LARGE))

    def set_whole_seconds(file: int | Path, *times: Any, ns: tuple[int, int] = (0, 0)) -> None:
        if error is not None and isinstance(file, int):
            raise error
        set_time(file, *(times or ((ns[0] // 10**9,) * 2,)))

    def verify(data: Path, file: int, expected: Digest) -> None:
        verified.append(data)
        verify_or_delete(data, file, expected)

    def opens() -> bool:
        opened = now(contents.open(HERE, digest, ContentKind.BLOB))
        if opened is None:
            return False
        return now(read(opened)) == LARGE

    monkeypatch.setattr(os, "utime", set_whole_seconds)
    monkeypatch.setattr(local_store, "verify_or_delete", verify)
    assert (opens(), opens(), len(verified)) == (True, True, 1)
    store.clock.advance(100)
    assert (opens(), opens(), len(verified)) == (True, True, 1)
    os.truncate(path, len(LARGE) - 1)
    assert (opens(), len(verified)) == (False, 2)


@pytest.mark.parametrize("data", [DATA, LARGE])
def test_unreadable_contents(store: Stocked, monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    """An unreadable content is deleted; else it would be served in part for ever."""
    digest = Digest.of(data)
    now(store.contents.add(HERE, digest, ContentKind.BLOB, data))

    def failing(call: Callable[..., bytes]) -> Callable[..., bytes]:
        def read(file: int, *wanted: int) -> bytes:
            if os.readlink(f"/proc/self/fd/{file}") == str(store.root / layout.data(digest)):
                raise OSError(EIO, os.strerror(EIO))
            return call(file, *wanted)

        return read

    for name in ("read", "pread"):
        monkeypatch.setattr(os, name, failing(getattr(os, name)))
    assert now(store.contents.open(HERE, digest, ContentKind.BLOB)) is None
    assert not now(store.contents.holds(digest))


def test_linking_is_a_use(store: Stocked) -> None:
    """Linking a content is a use, so that a running eviction spares it; so is reading a document."""
    now(store.contents.add(HERE, DIGEST, ContentKind.BLOB, DATA))
    now(store.documents.write("name", b"text"))
    store.clock.advance(61)
    now(store.contents.link(ELSEWHERE, DIGEST, ContentKind.BLOB))
    now(store.documents.read("name"))
    for path in (layout.data(DIGEST), layout.document("name")):
        assert (store.root / path).stat().st_mtime == EPOCH + 61


def test_evicted_under_a_reader(store: Stocked) -> None:
    """A reader reads a content to its end although it is evicted meanwhile."""
    now(store.contents.add(HERE, LARGE_DIGEST, ContentKind.BLOB, LARGE))
    opened = now(store.contents.open(HERE, LARGE_DIGEST, ContentKind.BLOB))
    (store.root / layout.data(LARGE_DIGEST)).unlink()
    assert now(read(opened)) == LARGE
    assert now(store.contents.open(HERE, LARGE_DIGEST, ContentKind.BLOB)) is None


def test_cancelled_opening(store: Stocked) -> None:
    """A cancelled opening leaves no file open."""
    now(store.contents.add(HERE, LARGE_DIGEST, ContentKind.BLOB, LARGE))
    threads = HeldThreads()
    contents = LocalContentStore(store.root, store.clock, threads)
    with all_closed(store.root):
        opening = Deferred.fromCoroutine(contents.open(HERE, LARGE_DIGEST, ContentKind.BLOB))
        outcome = watch(opening)
        opening.cancel()
        assert [type(error) for error in outcome] == [CancelledError]
        threads.run()


def test_disk_full(store: Stocked) -> None:
    """On a full disk nothing changes, and only adding a content fails."""
    now(store.contents.add(HERE, DIGEST, ContentKind.MANIFEST, DATA))
    now(store.tags.put(HERE, LATEST, DIGEST))
    now(store.documents.write("name", b"before"))
    before = files_of(store.root)
    with full(0):
        with pytest.raises(OSError, match="File too large"):
            now(store.contents.add(HERE, LARGE_DIGEST, ContentKind.MANIFEST, LARGE))
        assert not now(store.contents.link(ELSEWHERE, DIGEST, ContentKind.MANIFEST))
        now(store.tags.put(HERE, LATEST, LARGE_DIGEST))
        now(store.documents.write("name", b"after"))
        assert files_of(store.root) == before
        assert now(read(now(store.contents.open(HERE, DIGEST, ContentKind.MANIFEST)))) == DATA


def test_two_stores(store: Stocked) -> None:
    """Contents, links and tags of one process are seen by another one on the same directory."""
    other = Stocked(store.root)
    now(store.contents.add(HERE, DIGEST, ContentKind.MANIFEST, DATA))
    assert now(other.contents.link(ELSEWHERE, DIGEST, ContentKind.MANIFEST))
    assert now(read(now(other.contents.open(HERE, DIGEST, ContentKind.MANIFEST)))) == DATA
    assert now(read(now(store.contents.open(ELSEWHERE, DIGEST, ContentKind.MANIFEST)))) == DATA
    now(store.tags.put(HERE, LATEST, DIGEST))
    now(other.tags.put(HERE, LATEST, LARGE_DIGEST))
    assert now(store.tags.get(HERE, LATEST)) == TagEntry(LARGE_DIGEST, EPOCH)


def test_tags_are_cached(store: Stocked) -> None:
    """A tag that was just read is read again only if its file has changed, or after ten seconds."""
    threads = HeldThreads()
    tags = LocalTagStore(store.root, store.clock, threads)
    now(store.tags.put(HERE, LATEST, DIGEST))
    for change, expected in (
        (None, TagEntry(DIGEST, EPOCH)),
        (None, TagEntry(DIGEST, EPOCH)),
        (store.tags.put(HERE, LATEST, DIGEST), TagEntry(DIGEST, EPOCH + 2 * REREAD_INTERVAL)),
        (store.tags.put(HERE, LATEST, LARGE_DIGEST), TagEntry(LARGE_DIGEST, EPOCH + 2 * REREAD_INTERVAL)),
        (store.tags.forget(HERE, LATEST), None),
    ):
        if change is not None:
            now(change)
        reading = watch(tags.get(HERE, LATEST))
        threads.run()
        assert reading == [expected]
        if expected is not None:
            assert now(tags.get(HERE, LATEST)) == expected
        if change is None:
            store.clock.advance(REREAD_INTERVAL)


def test_emptied_cache(store: Stocked) -> None:
    """A directory may be emptied while it is used; a file in place of a directory stores nothing."""
    now(store.contents.add(HERE, DIGEST, ContentKind.MANIFEST, DATA))
    for path in store.root.iterdir():
        shutil.rmtree(path)
    assert now(store.contents.open(HERE, DIGEST, ContentKind.MANIFEST)) is None
    now(store.contents.add(HERE, DIGEST, ContentKind.MANIFEST, DATA))
    assert now(read(now(store.contents.open(HERE, DIGEST, ContentKind.MANIFEST)))) == DATA
    directory = store.root / layout.data(DIGEST).parent
    shutil.rmtree(directory)
    directory.touch()
    assert not now(store.contents.holds(DIGEST))
    with pytest.raises(NotADirectoryError):
        now(store.contents.add(HERE, DIGEST, ContentKind.BLOB, DATA))


@pytest.mark.parametrize("data", [DATA, LARGE], ids=["small", "large"])
def test_bytes_are_counted(tmp_path: Path, data: bytes) -> None:
    """Added bytes are counted, and those of a corrupt content subtracted.

    Opening, linking and replacing count nothing.
    """
    counts: list[int] = []
    contents, digest = LocalContentStore(tmp_path, Clock(), inline, counts.append), Digest.of(data)
    now(contents.add(HERE, digest, ContentKind.BLOB, data))
    now(contents.link(ELSEWHERE, digest, ContentKind.BLOB))
    assert now(read(now(contents.open(HERE, digest, ContentKind.BLOB)))) == data
    assert counts == [len(data)]
    (tmp_path / layout.data(digest)).write_bytes(data[:-1] + b"?")
    assert now(contents.open(HERE, digest, ContentKind.BLOB)) is None
    assert sum(counts) == 0
    for _ in range(2):
        now(contents.add(HERE, digest, ContentKind.BLOB, data))
    assert sum(counts) == len(data)
