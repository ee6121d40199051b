"""The index of a store: it follows every change at once, and agrees with a walk."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random

import pytest

from dockmirror.interfaces import ContentKind
from dockmirror.oci.digest import Digest
from dockmirror.oci.request import Repository, Tag
from dockmirror.store import layout
from dockmirror.store.eviction.removal import DeletableImage, delete_images
from dockmirror.store.eviction.store_budget import Budget
from dockmirror.store.store_files import ContentDeleted, read_verified
from dockmirror.store.store_index import StoreIndex

from ..answering import now
from .stocked import HERE, HOUR, Stocked

REPOSITORIES = [
    HERE,
    Repository("docker.io/library/a"),
    Repository("docker.io/a"),
    Repository("ghcr.io/b/c/d"),
]
Sums = Mapping[str, tuple[int, int, int]]


def walk(root: Path, name: Callable[[Path], str]) -> Sums:
    """Return bytes, shared bytes and number of the contents of each name, from a walk of the whole tree."""
    linked: defaultdict[str, set[str]] = defaultdict(set)
    top = root / layout.REPOSITORIES
    for link in top.rglob("link"):
        if "tags" not in link.parts:
            repository = Path(*link.relative_to(top).parts[: -5 if "revisions" in link.parts else -4])
            linked[name(repository)].add(link.parent.name)
    sizes = {path.parent.name: path.stat().st_size for path in (root / layout.BLOBS).rglob("data")}
    found = {}
    for key, digests in linked.items():
        held = digests & sizes.keys()
        shared = {each for each in held if sum(each in other for other in linked.values()) > 1}
        if held:
            found[key] = (sum(map(sizes.__getitem__, held)), sum(map(sizes.__getitem__, shared)), len(held))
    return found


def check(index: StoreIndex, root: Path) -> None:
    """Compare the index with a walk."""
    held = index.snapshot()
    by_repository, by_registry = (
        {name: (each.bytes, each.shared, each.contents) for name, each in sums.items()}
        for sums in (held.by_repository, held.by_registry)
    )
    assert by_repository == walk(root, str)
    assert {name: held.bytes_of(name) for name in held.names} == {
        name: each.bytes for name, each in sorted(held.by_repository.items())
    }
    assert by_registry == walk(root, lambda path: path.parts[0])
    parts = (root / layout.BLOBS, root / layout.DOCUMENTS, root / layout.GROWING)
    files = (path for part in parts for path in part.rglob("*") if path.is_file())
    assert held.held_bytes == sum(path.stat().st_size for path in files)


@pytest.mark.parametrize("seed", range(2))
def test_sums_agree_with_a_walk_after_random_changes(store: Stocked, seed: int) -> None:
    """Contents come and go by every way: pulls, deletions, evictions, corruption, downloads, unlinking."""
    random, index = Random(seed), StoreIndex(store.root)
    for number in range(14):
        repository = random.choice(REPOSITORIES)
        step = random.choice(
            ["image", "image", "image", "remove", "evict", "unlink", "corrupt", "part", "document"]
        )
        blobs = [bytes([random.randrange(30)]) * random.randrange(1, 40) for _ in range(3)]
        digests = [
            store.blob(each, HOUR + random.randrange(9999), repository)
            for each in blobs[: step == "image" and 3]
        ]
        held = [digest for part in index.snapshot().sizes.values() for digest in part]
        if step == "image":
            store.image(*digests, age=HOUR + number, tag=f"t{random.randrange(5)}", repository=repository)
        elif step == "remove":
            delete_images(store.root, [DeletableImage(repository, Tag(f"t{random.randrange(5)}"))])
        elif step == "evict":
            store.evict(Budget(max(1, store.size() * 2 // 3)))
        elif step == "unlink" and held:
            now(store.contents.unlink(repository, random.choice(held), ContentKind.BLOB))
        elif step == "corrupt" and held:
            corrupt(store.root, random.choice(held))
        elif step == "part":
            part = store.root / layout.growing("docker.io", Digest.of(bytes([number])))
            part.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(b"x" * number)
        elif step == "document":
            now(store.documents.write(f"d{random.randrange(3)}", b"x" * number))
        check(index, store.root)
        settle(store.root)
        index.snapshot()


def settle(root: Path) -> None:
    """Set the times of all directories back, so that the index trusts them until they change."""
    for directory in (each for each in root.rglob("*") if each.is_dir()):
        os.utime(directory, (0, 0))


def corrupt(root: Path, digest: Digest) -> None:
    """Corrupt a file, and read it as the mirror does."""
    path = root / layout.data(digest)
    path.write_bytes(b"corrupt")
    file = os.open(path, os.O_RDONLY)
    with pytest.raises(ContentDeleted):
        read_verified(path, file, digest)
    os.close(file)


def test_an_unchanged_store_is_not_listed_again(store: Stocked) -> None:
    """A change of one directory lists that one."""
    index = StoreIndex(store.root)
    store.image(store.blob(b"x"), repository=HERE)
    settle(store.root)
    first = index.snapshot()
    assert index.snapshot() is first
    store.blob(b"y")
    assert index.snapshot().held_bytes == first.held_bytes + 1
    empty = StoreIndex(store.root / "nothing").snapshot()
    assert (empty.held_bytes, empty.by_registry, empty.size_of(Digest.of(b"x"))) == (0, {}, None)


def test_a_content_without_bytes_yet_is_looked_at_again(store: Stocked) -> None:
    """Its directory is made before the bytes are moved there."""
    index, digest = StoreIndex(store.root), Digest.of(b"late")
    path = store.root / layout.data(digest)
    path.parent.mkdir(parents=True)
    settle(store.root)
    assert index.snapshot().size_of(digest) is None
    path.write_bytes(b"late")
    assert index.snapshot().size_of(digest) == 4


def test_the_rest_is_listed_while_a_repository_cannot_be_read(store: Stocked) -> None:
    index = StoreIndex(store.root)
    for repository in REPOSITORIES:
        store.image(store.blob(b"x"), repository=repository)
    index.snapshot()
    directory = store.root / layout.REPOSITORIES / "ghcr.io"
    aside = directory.rename(store.root / "aside")
    directory.symlink_to("ghcr.io")  # root, too, cannot list a link to itself
    assert index.snapshot().by_registry.keys() == {"docker.io"}
    directory.unlink()
    aside.rename(directory)
    assert index.snapshot().by_registry.keys() == {"docker.io", "ghcr.io"}
