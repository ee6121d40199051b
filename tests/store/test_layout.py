"""The paths of stored files."""

from __future__ import annotations

from itertools import product
from pathlib import PurePosixPath

from hypothesis import given, settings
from hypothesis import strategies as st

from dockmirror.interfaces import ContentKind
from dockmirror.oci.digest import Digest
from dockmirror.oci.request import Repository, Tag
from dockmirror.store import layout

from ..values import digests, repositories, tags

HEX = "ab" + "0" * 62
DIGEST = Digest("sha256", HEX)


def test_our_own_files_lie_beside_the_registry() -> None:
    paths = {
        f"dockmirror/growing/docker.io/sha256-{HEX}": layout.growing("docker.io", DIGEST),
        f"dockmirror/growing/docker.io/sha256-{HEX}.size": layout.growing_size("docker.io", DIGEST),
        "dockmirror/documents/public": layout.document("public"),
    }
    assert list(paths) == [str(path) for path in paths.values()]


@settings(max_examples=30)
@given(st.lists(st.tuples(repositories, digests, tags), min_size=2, max_size=4))
def test_paths_do_not_collide(values: list[tuple[Repository, Digest, Tag]]) -> None:
    """No two paths are equal, none lies below another, and none has a colon, on which a registry fails."""
    found: dict[object, PurePosixPath] = {}
    for repository, digest, name in values:
        found[digest] = layout.data(digest)
        for kind in ContentKind:
            found[repository, digest, kind] = layout.link(repository, digest, kind)
        found[repository, name] = layout.tag_link(repository, name)
        found[repository, name, digest] = layout.tag_history(repository, name, digest)
        found[None, digest] = layout.growing("a_1", digest)
    for one, other in product(found, found):
        assert one == other or not found[one].is_relative_to(found[other])
    assert not any(":" in str(path) for path in found.values())


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
