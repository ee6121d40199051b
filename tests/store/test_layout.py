"""The paths of stored files."""

from __future__ import annotations

from itertools import product
from pathlib import PurePosixPath

from hypothesis import given
from hypothesis import strategies as st

from dockmirror.interfaces import ContentKind
from dockmirror.oci.digest import Digest
from dockmirror.oci.reference import Repository, Tag
from dockmirror.store import layout

from ..values import digests, repositories, tags

HEX = "ab" + "0" * 62
DIGEST = Digest("sha256", HEX)
BUSYBOX = Repository("docker.io/library/busybox")
LATEST = Tag("latest")


def test_distribution() -> None:
    """Contents, links and tags lie where an ordinary registry looks for them."""
    busybox = "repositories/docker.io/library/busybox"
    manifests = f"{busybox}/_manifests"
    expected = {
        f"blobs/sha256/ab/{HEX}/data": layout.data(DIGEST),
        f"{busybox}/_layers/sha256/{HEX}/link": layout.link(BUSYBOX, DIGEST, ContentKind.BLOB),
        f"{manifests}/revisions/sha256/{HEX}/link": layout.link(BUSYBOX, DIGEST, ContentKind.MANIFEST),
        f"{manifests}/tags/latest/current/link": layout.tag_link(BUSYBOX, LATEST),
        f"{manifests}/tags/latest/index/sha256/{HEX}/link": layout.tag_history(BUSYBOX, LATEST, DIGEST),
    }
    assert [f"docker/registry/v2/{path}" for path in expected] == [str(path) for path in expected.values()]


def test_own_files() -> None:
    """Our own files lie outside an ordinary registry's tree."""
    assert str(layout.growing("docker.io", DIGEST)) == f"dockmirror/growing/docker.io/sha256-{HEX}"
    assert str(layout.growing_size("docker.io", DIGEST)) == f"dockmirror/growing/docker.io/sha256-{HEX}.size"
    assert str(layout.document("public")) == "dockmirror/documents/public"


@given(st.lists(st.tuples(repositories, digests, tags), min_size=2, max_size=4))
def test_paths_do_not_collide(values: list[tuple[Repository, Digest, Tag]]) -> None:
    """No two paths are equal, and none lies below another."""
    found: dict[object, PurePosixPath] = {}
    for repository, digest, name in values:
        found[digest] = layout.data(digest)
        for kind in ContentKind:
            found[repository, digest, kind] = layout.link(repository, digest, kind)
        found[repository, name] = layout.tag_link(repository, name)
        found[repository, name, digest] = layout.tag_history(repository, name, digest)
    for one, other in product(found, found):
        assert one == other or not found[one].is_relative_to(found[other])


@given(repositories, digests, tags)
def test_no_colon(repository: Repository, digest: Digest, name: Tag) -> None:
    """No path has a colon, on which an ordinary registry fails."""
    paths = layout.data(digest), layout.tag_history(repository, name, digest), layout.growing("a_1", digest)
    assert not any(":" in str(path) for path in paths)


@given(st.text(), st.text())
def test_documents(one: str, other: str) -> None:
    """A document of any name has a valid file name of its own."""
    path = layout.document(one)
    assert path.parent == layout.DOCUMENTS
    assert 0 < len(path.name.encode()) < 256
    assert not path.name.startswith(".")
    assert (path == layout.document(other)) == (one == other)


def test_long_documents() -> None:
    """Long names get different files, and no name collides with a hashed one."""
    long = ["x" * 1000, "x" * 999 + "y"]
    hashed = [layout.document(name).name for name in long]
    assert len({*hashed, *(layout.document(name).name for name in hashed)}) == 4
