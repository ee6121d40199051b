"""Contents, tags and documents on a disk."""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EIO
from pathlib import Path

import pytest
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.threadpool import ThreadPool

from dockmirror.interfaces import ContentKind, IContentStore, IDocumentStore, ITagStore, TagEntry
from dockmirror.oci.descriptor import Descriptor
from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import Unavailable
from dockmirror.oci.ranges import ContentRange
from dockmirror.store import layout, local_store
from dockmirror.store.content_files import verify_or_delete
from dockmirror.store.local_store import REREAD_INTERVAL, LocalContentStore, LocalDocumentStore, LocalTagStore
from dockmirror.store.threads import RunInThread, run_in_pool

from ..answering import Recorder, now, watch
from .contract import (
    DATA,
    DIGEST,
    ELSEWHERE,
    HERE,
    LARGE,
    LARGE_DIGEST,
    LATEST,
    ContentsContract,
    DocumentsContract,
    TagsContract,
    read,
)
from .threads import HeldThreads, inline

EPOCH = 1_700_000_000.0
DATA_FILE = f"docker/registry/v2/blobs/sha256/{DIGEST.hex[:2]}/{DIGEST.hex}/data"
REPOSITORY = "docker/registry/v2/repositories/docker.io/library/busybox"


@pytest.fixture
def clock() -> Clock:
    """A clock in November 2023."""
    clock = Clock()
    clock.advance(EPOCH)
    return clock


@pytest.fixture
def contents(tmp_path: Path, clock: Clock) -> LocalContentStore:
    return LocalContentStore(tmp_path, clock, inline)


@pytest.fixture
def threads() -> Iterator[RunInThread]:
    """Real threads."""
    pool = ThreadPool(0, 4)
    pool.start()
    yield run_in_pool(reactor, pool)  # type: ignore[arg-type]
    pool.stop()


class TestContents(ContentsContract):
    """Contents in a directory, without threads."""

    @pytest.fixture
    def contents(self, tmp_path: Path, clock: Clock) -> IContentStore:
        return LocalContentStore(tmp_path, clock, inline)


class TestContentsInThreads(ContentsContract):
    """Contents in a directory, with threads."""

    @pytest.fixture
    def contents(self, tmp_path: Path, clock: Clock, threads: RunInThread) -> IContentStore:
        return LocalContentStore(tmp_path, clock, threads)


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="there is no file system in memory")  # noqa: S108
class TestContentsOnTmpfs(ContentsContract):
    """Contents on a file system that cannot tell which pages are cached."""

    @pytest.fixture
    def contents(self, clock: Clock, threads: RunInThread) -> Iterator[IContentStore]:
        with tempfile.TemporaryDirectory(dir="/dev/shm") as root:
            yield LocalContentStore(Path(root), clock, threads)


class TestTags(TagsContract):
    @pytest.fixture
    def tags(self, tmp_path: Path, clock: Clock) -> ITagStore:
        return LocalTagStore(tmp_path, clock, inline)


class TestDocuments(DocumentsContract):
    @pytest.fixture
    def documents(self, tmp_path: Path, clock: Clock) -> IDocumentStore:
        return LocalDocumentStore(tmp_path, clock, inline)


def files_of(root: Path) -> dict[str, bytes]:
    """Return all files below a directory."""
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_tree(tmp_path: Path, clock: Clock, contents: LocalContentStore) -> None:
    """The directory holds what an ordinary registry would have written, and nothing else."""
    tags = LocalTagStore(tmp_path, clock, inline)
    now(contents.add(HERE, DIGEST, ContentKind.MANIFEST, DATA))
    now(contents.link(HERE, DIGEST, ContentKind.BLOB))
    now(tags.put(HERE, LATEST, DIGEST))
    link = f"sha256:{DIGEST.hex}".encode()
    assert files_of(tmp_path) == {
        DATA_FILE: DATA,
        f"{REPOSITORY}/_layers/sha256/{DIGEST.hex}/link": link,
        f"{REPOSITORY}/_manifests/revisions/sha256/{DIGEST.hex}/link": link,
        f"{REPOSITORY}/_manifests/tags/latest/current/link": link,
        f"{REPOSITORY}/_manifests/tags/latest/index/sha256/{DIGEST.hex}/link": link,
    }


def test_removed_tag(tmp_path: Path, clock: Clock, contents: LocalContentStore) -> None:
    """A removed tag leaves no file and no directory."""
    tags = LocalTagStore(tmp_path, clock, inline)
    now(contents.add(HERE, DIGEST, ContentKind.MANIFEST, DATA))
    before = sorted(tmp_path.rglob("*"))
    now(tags.put(HERE, LATEST, LARGE_DIGEST))
    now(tags.put(HERE, LATEST, DIGEST))
    now(tags.forget(HERE, LATEST))
    assert sorted(tmp_path.rglob("*")) == before


MALFORMED = {
    "empty": b"",
    "a line": f"sha256:{DIGEST.hex}\n".encode(),
    "half": f"sha256:{DIGEST.hex[:30]}".encode(),
    "another": str(LARGE_DIGEST).encode(),
    "no text": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("link", MALFORMED.values(), ids=MALFORMED)
def test_malformed_link(tmp_path: Path, contents: LocalContentStore, link: bytes) -> None:
    """A malformed link counts as missing and is replaced by the next write."""
    now(contents.add(HERE, DIGEST, ContentKind.BLOB, DATA))
    now(contents.add(HERE, LARGE_DIGEST, ContentKind.BLOB, LARGE))
    path = tmp_path / layout.link(HERE, DIGEST, ContentKind.BLOB)
    path.write_bytes(link)
    assert now(contents.open(HERE, DIGEST, ContentKind.BLOB)) is None
    assert now(contents.link(HERE, DIGEST, ContentKind.BLOB))
    assert path.read_text() == str(DIGEST)


@pytest.mark.parametrize("link", [link for name, link in MALFORMED.items() if name != "another"])
def test_malformed_tag(tmp_path: Path, clock: Clock, link: bytes) -> None:
    """A tag with a malformed link names nothing."""
    tags = LocalTagStore(tmp_path, clock, inline)
    now(tags.put(HERE, LATEST, DIGEST))
    (tmp_path / layout.tag_link(HERE, LATEST)).write_bytes(link)
    assert now(tags.get(HERE, LATEST)) is None
    now(tags.put(HERE, LATEST, DIGEST))
    assert now(tags.get(HERE, LATEST)) is not None


def test_directories_in_the_way(tmp_path: Path, clock: Clock, contents: LocalContentStore) -> None:
    """A directory is no content, link, tag or document, and cannot be replaced by one."""
    for path in (
        layout.data(DIGEST),
        layout.link(HERE, LARGE_DIGEST, ContentKind.BLOB),
        layout.tag_link(HERE, LATEST),
        layout.document("name"),
    ):
        (tmp_path / path).mkdir(parents=True)
    now(contents.add(ELSEWHERE, LARGE_DIGEST, ContentKind.BLOB, LARGE))
    (tmp_path / layout.link(HERE, DIGEST, ContentKind.BLOB)).parent.mkdir(parents=True)
    (tmp_path / layout.link(HERE, DIGEST, ContentKind.BLOB)).write_text(str(DIGEST))
    assert not now(contents.holds(DIGEST))
    assert now(contents.open(HERE, DIGEST, ContentKind.BLOB)) is None
    assert not now(contents.link(HERE, DIGEST, ContentKind.BLOB))
    assert now(contents.open(HERE, LARGE_DIGEST, ContentKind.BLOB)) is None
    assert not now(contents.link(HERE, LARGE_DIGEST, ContentKind.BLOB))
    with pytest.raises(IsADirectoryError):
        now(contents.add(HERE, DIGEST, ContentKind.BLOB, DATA))
    tags, documents = LocalTagStore(tmp_path, clock, inline), LocalDocumentStore(tmp_path, clock, inline)
    now(tags.put(HERE, LATEST, DIGEST))
    assert now(tags.get(HERE, LATEST)) is None
    now(documents.write("name", b"text"))
    assert now(documents.read("name")) is None
    assert not list((tmp_path / layout.TEMPORARY).iterdir())


def test_files_in_the_way(tmp_path: Path, contents: LocalContentStore) -> None:
    """A content is absent, and cannot be stored, if a file is in the place of a directory."""
    path = tmp_path / layout.data(DIGEST).parent
    path.parent.mkdir(parents=True)
    path.touch()
    assert not now(contents.holds(DIGEST))
    with pytest.raises(NotADirectoryError):
        now(contents.add(HERE, DIGEST, ContentKind.BLOB, DATA))


@pytest.mark.parametrize("digest", [DIGEST, LARGE_DIGEST])
def test_empty_file(tmp_path: Path, contents: LocalContentStore, digest: Digest) -> None:
    """An empty file is no content, unless its digest is that of no bytes."""
    now(contents.add(HERE, digest, ContentKind.BLOB, DATA if digest == DIGEST else LARGE))
    os.truncate(tmp_path / layout.data(digest), 0)
    assert not now(contents.holds(digest))
    assert not now(contents.link(ELSEWHERE, digest, ContentKind.BLOB))
    assert now(contents.open(HERE, digest, ContentKind.BLOB)) is None


@pytest.mark.parametrize(("kind", "data"), [(ContentKind.BLOB, DATA), (ContentKind.MANIFEST, LARGE)])
def test_corrupt_contents(
    tmp_path: Path, contents: LocalContentStore, kind: ContentKind, data: bytes
) -> None:
    """A corrupt manifest or small blob is not served, and can be replaced."""
    digest = Digest.of(data)
    path = tmp_path / layout.data(digest)
    for damaged in (data[:-1], data[:-1] + b"?", data + b"?"):
        now(contents.add(HERE, digest, kind, data))
        path.write_bytes(damaged)
        assert now(contents.open(HERE, digest, kind)) is None
        assert not now(contents.holds(digest))
    now(contents.add(HERE, digest, kind, data))
    assert now(contents.open(HERE, digest, kind)) is not None


def test_links_without_bytes(tmp_path: Path, contents: LocalContentStore) -> None:
    """A link without bytes opens nothing, until the bytes are back."""
    now(contents.add(HERE, DIGEST, ContentKind.BLOB, DATA))
    (tmp_path / DATA_FILE).unlink()
    assert now(contents.open(HERE, DIGEST, ContentKind.BLOB)) is None
    assert not now(contents.link(HERE, DIGEST, ContentKind.BLOB))
    now(contents.add(ELSEWHERE, DIGEST, ContentKind.BLOB, DATA))
    assert now(contents.open(HERE, DIGEST, ContentKind.BLOB)) is not None


@pytest.mark.parametrize("data", [DATA, LARGE], ids=["small", "large"])
def test_use_is_recorded(tmp_path: Path, clock: Clock, contents: LocalContentStore, data: bytes) -> None:
    """A use is recorded in the modification time at most once a minute, also if that was in the future."""
    digest = Digest.of(data)
    path = tmp_path / layout.data(digest)
    now(contents.add(HERE, digest, ContentKind.BLOB, data))

    def used() -> int:
        opened = now(contents.open(HERE, digest, ContentKind.BLOB))
        assert opened is not None
        opened.close()
        return int(path.stat().st_mtime)  # the rest is the seal

    assert used() == EPOCH
    clock.advance(59)
    assert used() == EPOCH
    clock.advance(2)
    assert used() == EPOCH + 61
    os.utime(path, (EPOCH + 1000, EPOCH + 1000))
    assert used() == EPOCH + 61


@pytest.mark.parametrize("spoil", ["cut short", "written to"])
def test_changed_contents_are_not_served(tmp_path: Path, contents: LocalContentStore, spoil: str) -> None:
    """A changed content of any size is not served, so that the next pull fetches it again."""
    digest = Digest.of(LARGE)
    path = tmp_path / layout.data(digest)
    now(contents.add(HERE, digest, ContentKind.BLOB, LARGE))
    opened = now(contents.open(HERE, digest, ContentKind.BLOB))
    assert opened is not None
    opened.close()
    with path.open("r+b") as file:
        file.truncate(len(LARGE) - 1) if spoil == "cut short" else file.write(b"something else")
    assert now(contents.open(HERE, digest, ContentKind.BLOB)) is None
    assert not path.exists()


def test_changed_during_verification(
    tmp_path: Path, contents: LocalContentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A content that is changed while it is verified is not sealed."""
    digest = Digest.of(LARGE)
    path = tmp_path / layout.data(digest)
    now(contents.add(HERE, digest, ContentKind.BLOB, LARGE))

    def read(data: Path, file: int, expected: Digest) -> bool:
        right = verify_or_delete(data, file, expected)
        if right:
            path.write_bytes(b"something else" + LARGE)
        return right

    monkeypatch.setattr(local_store, "verify_or_delete", read)
    assert now(contents.open(HERE, digest, ContentKind.BLOB)) is None
    assert not path.exists()


@pytest.mark.parametrize("data", [DATA, LARGE])
def test_unreadable_contents(
    tmp_path: Path, contents: LocalContentStore, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    """An unreadable content is deleted; else it would be served in part for ever."""
    digest = Digest.of(data)
    now(contents.add(HERE, digest, ContentKind.BLOB, data))

    def failing(call: Callable[..., bytes]) -> Callable[..., bytes]:
        def read(file: int, *wanted: int) -> bytes:
            if os.readlink(f"/proc/self/fd/{file}") == str(tmp_path / layout.data(digest)):
                raise OSError(EIO, os.strerror(EIO))
            return call(file, *wanted)

        return read

    for name in ("read", "pread"):
        monkeypatch.setattr(os, name, failing(getattr(os, name)))
    assert now(contents.open(HERE, digest, ContentKind.BLOB)) is None
    assert not now(contents.holds(digest))


def test_linking_is_a_use(tmp_path: Path, clock: Clock, contents: LocalContentStore) -> None:
    """Linking a content is a use, so that a running eviction spares it."""
    now(contents.add(HERE, DIGEST, ContentKind.BLOB, DATA))
    clock.advance(1)
    now(contents.link(ELSEWHERE, DIGEST, ContentKind.BLOB))
    assert (tmp_path / DATA_FILE).stat().st_mtime == EPOCH + 1


def test_use_of_documents_is_recorded(tmp_path: Path, clock: Clock) -> None:
    """The use of a document is recorded at most once a minute."""
    documents = LocalDocumentStore(tmp_path, clock, inline)
    now(documents.write("name", b"text"))
    clock.advance(61)
    now(documents.read("name"))
    assert (tmp_path / layout.document("name")).stat().st_mtime == EPOCH + 61


def test_evicted_under_a_reader(tmp_path: Path, contents: LocalContentStore) -> None:
    """A reader reads a content to its end although it is evicted meanwhile."""
    now(contents.add(HERE, LARGE_DIGEST, ContentKind.BLOB, LARGE))
    opened = now(contents.open(HERE, LARGE_DIGEST, ContentKind.BLOB))
    (tmp_path / layout.data(LARGE_DIGEST)).unlink()
    assert now(read(opened)) == LARGE
    assert now(contents.open(HERE, LARGE_DIGEST, ContentKind.BLOB)) is None


def test_truncated_under_a_reader(tmp_path: Path, contents: LocalContentStore) -> None:
    """The delivery of a file that is truncated while it is open fails."""
    now(contents.add(HERE, LARGE_DIGEST, ContentKind.BLOB, LARGE))
    opened = now(contents.open(HERE, LARGE_DIGEST, ContentKind.BLOB))
    assert opened is not None
    os.truncate(tmp_path / layout.data(LARGE_DIGEST), 1000)
    recorder = Recorder()
    part = ContentRange(0, opened.size - 1, opened.size)
    (error,) = watch(opened.body(Descriptor(), [part]).deliver(recorder))
    assert isinstance(error, Unavailable)
    assert (recorder.data, recorder.producer) == (LARGE[:1000], None)


@contextmanager
def no_file_left_open() -> Iterator[None]:
    """Check that all files opened within are closed within."""
    before = os.listdir("/proc/self/fd")
    yield
    assert os.listdir("/proc/self/fd") == before


def test_cancelled_opening(tmp_path: Path, clock: Clock, contents: LocalContentStore) -> None:
    """A cancelled opening leaves no file open."""
    now(contents.add(HERE, LARGE_DIGEST, ContentKind.BLOB, LARGE))
    threads = HeldThreads()
    with no_file_left_open():
        opening = Deferred.fromCoroutine(
            LocalContentStore(tmp_path, clock, threads).open(HERE, LARGE_DIGEST, ContentKind.BLOB)
        )
        outcome = watch(opening)
        opening.cancel()
        assert [type(error) for error in outcome] == [CancelledError]
        threads.run()


@contextmanager
def disk_full() -> Iterator[None]:
    """Keep files from growing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_disk_full(tmp_path: Path, clock: Clock, contents: LocalContentStore) -> None:
    """On a full disk nothing changes, and only adding a content fails."""
    tags, documents = LocalTagStore(tmp_path, clock, inline), LocalDocumentStore(tmp_path, clock, inline)
    now(contents.add(HERE, DIGEST, ContentKind.MANIFEST, DATA))
    now(tags.put(HERE, LATEST, DIGEST))
    now(documents.write("name", b"before"))
    before = files_of(tmp_path)
    with disk_full():
        with pytest.raises(OSError, match="File too large"):
            now(contents.add(HERE, LARGE_DIGEST, ContentKind.MANIFEST, LARGE))
        assert not now(contents.link(ELSEWHERE, DIGEST, ContentKind.MANIFEST))
        now(tags.put(HERE, LATEST, LARGE_DIGEST))
        now(documents.write("name", b"after"))
        assert files_of(tmp_path) == before
        assert now(read(now(contents.open(HERE, DIGEST, ContentKind.MANIFEST)))) == DATA


def test_two_stores(tmp_path: Path, clock: Clock, contents: LocalContentStore) -> None:
    """Contents, links and tags of one process are seen by another one on the same directory."""
    other = LocalContentStore(tmp_path, clock, inline)
    tags, other_tags = LocalTagStore(tmp_path, clock, inline), LocalTagStore(tmp_path, clock, inline)
    now(contents.add(HERE, DIGEST, ContentKind.MANIFEST, DATA))
    assert now(other.link(ELSEWHERE, DIGEST, ContentKind.MANIFEST))
    assert now(read(now(other.open(HERE, DIGEST, ContentKind.MANIFEST)))) == DATA
    assert now(read(now(contents.open(ELSEWHERE, DIGEST, ContentKind.MANIFEST)))) == DATA
    now(tags.put(HERE, LATEST, DIGEST))
    now(other_tags.put(HERE, LATEST, LARGE_DIGEST))
    found = now(tags.get(HERE, LATEST))
    assert found is not None
    assert found.digest == LARGE_DIGEST
    now(other_tags.forget(HERE, LATEST))
    assert now(tags.get(HERE, LATEST)) is None


def test_tags_are_cached(tmp_path: Path, clock: Clock) -> None:
    """A tag that was just read is read again only if its file has changed."""
    threads = HeldThreads()
    tags, other = LocalTagStore(tmp_path, clock, threads), LocalTagStore(tmp_path, clock, inline)
    now(other.put(HERE, LATEST, DIGEST))
    asked = Deferred.fromCoroutine(tags.get(HERE, LATEST))
    threads.run()
    assert now(asked) == now(tags.get(HERE, LATEST)) == TagEntry(DIGEST, clock.seconds())
    assert not threads.held
    clock.advance(1)
    for change, expected in (
        (other.put(HERE, LATEST, DIGEST), TagEntry(DIGEST, clock.seconds())),
        (other.put(HERE, LATEST, LARGE_DIGEST), TagEntry(LARGE_DIGEST, clock.seconds())),
        (other.forget(HERE, LATEST), None),
    ):
        now(change)
        asked = Deferred.fromCoroutine(tags.get(HERE, LATEST))
        threads.run()
        assert now(asked) == expected


def test_cached_tags_expire(tmp_path: Path, clock: Clock) -> None:
    """After ten seconds a tag is read again."""
    threads = HeldThreads()
    tags = LocalTagStore(tmp_path, clock, threads)
    now(LocalTagStore(tmp_path, clock, inline).put(HERE, LATEST, DIGEST))
    for _ in range(2):
        asked = Deferred.fromCoroutine(tags.get(HERE, LATEST))
        threads.run()
        assert now(asked) is not None
        clock.advance(REREAD_INTERVAL)


def test_emptied_cache(tmp_path: Path, contents: LocalContentStore) -> None:
    """An operator may empty the directory of a running process, which goes on with an empty store."""
    now(contents.add(HERE, DIGEST, ContentKind.MANIFEST, DATA))
    for path in tmp_path.iterdir():
        shutil.rmtree(path)
    assert now(contents.open(HERE, DIGEST, ContentKind.MANIFEST)) is None
    now(contents.add(HERE, DIGEST, ContentKind.MANIFEST, DATA))
    assert now(read(now(contents.open(HERE, DIGEST, ContentKind.MANIFEST)))) == DATA


def test_added_bytes_are_counted(tmp_path: Path, clock: Clock) -> None:
    """Added bytes are counted; opening and linking count nothing."""
    counts: list[int] = []
    contents = LocalContentStore(tmp_path, clock, inline, counts.append)
    now(contents.add(HERE, DIGEST, ContentKind.BLOB, DATA))
    now(contents.link(ELSEWHERE, DIGEST, ContentKind.BLOB))
    now(contents.open(HERE, DIGEST, ContentKind.BLOB))
    assert counts == [len(DATA)]
