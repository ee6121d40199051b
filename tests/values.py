"""Values of the field, drawn at random, for whatever has to hold for all of them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, pairwise, zip_longest
from typing import TypeVar

from hypothesis import strategies as st

from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import RegistryError
from dockmirror.oci.request import (
    Blob,
    Catalog,
    Manifest,
    Ping,
    Reference,
    Referrers,
    Repository,
    Tag,
    Tags,
    Target,
)
from dockmirror.oci.token import CATALOG, Scope

Asked = TypeVar("Asked")
Parsed = TypeVar("Parsed")

ODD_NAMES = [
    "v2",
    "v2/auth",
    "library/v2",
    "auth",
    "manifests",
    "manifests/blobs",
    "blobs/manifests/tags",
    "tags/list",
    "blobs/uploads",
    "referrers/tags/list/manifests",
    "a-b.c_d__e/f-g",
    "a---b",
    "foo/bar/baz/deep",
    "0",
    "a" * 255,
]
"""Names of repositories that look like parts of a path, or use all that the grammar allows."""

CHUNKS = st.lists(st.binary(max_size=40), max_size=12)
"""Bytes as they might arrive; empty pieces among them."""

_WORDS = st.text("abz059", min_size=1, max_size=6)
_SEPARATORS = st.sampled_from([".", "_", "__", "-", "--", "----"])


def attempt(parse: Callable[[Asked], Parsed], asked: Asked) -> Parsed | RegistryError:
    """Return the parsed value or the ``RegistryError``; anything else that is raised is a mistake."""
    try:
        return parse(asked)
    except RegistryError as error:
        return error


@st.composite
def cuts(draw: st.DrawFn, data: bytes, most: int = 12) -> list[bytes]:
    """The data in pieces, as they might arrive."""
    places = sorted(draw(st.lists(st.integers(0, len(data)), max_size=most)))
    return [data[first:last] for first, last in pairwise([0, *places, len(data)])]


@st.composite
def components(draw: st.DrawFn) -> str:
    """One part of a repository's name."""
    words = draw(st.lists(_WORDS, min_size=1, max_size=3))
    separators = draw(st.lists(_SEPARATORS, min_size=len(words) - 1, max_size=len(words) - 1))
    return "".join(chain.from_iterable(zip_longest(words, separators, fillvalue="")))


names = st.sampled_from(ODD_NAMES) | st.lists(components(), min_size=1, max_size=5).map("/".join)
repositories = names.map(Repository)
tags = st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", fullmatch=True).map(Tag)
digests = st.builds(Digest.of, st.binary(max_size=8), st.sampled_from(["sha256", "sha384", "sha512"]))
references: st.SearchStrategy[Reference] = tags | digests
scopes = st.builds(
    Scope,
    st.sampled_from(["repository", "repository(plugin)", "registry", "x"]),
    st.tuples(st.sampled_from(["", "localhost:5000/", "registry.example:443/", "[::1]:5000/"]), names).map(
        "".join
    ),
    st.lists(st.sampled_from(["pull", "push", "delete", "*"]), min_size=1, max_size=3).map(tuple),
) | st.sampled_from([CATALOG, Scope("aws")])
targets: st.SearchStrategy[Target] = st.one_of(
    st.just(Ping()),
    st.just(Catalog()),
    st.builds(Manifest, repositories, references),
    st.builds(Blob, repositories, digests),
    st.builds(Tags, repositories),
    st.builds(Referrers, repositories, digests),
)
