"""Names of repositories and of manifests."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given

from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import DigestInvalid, NameInvalid, RegistryError, TagInvalid
from dockmirror.oci.request import Repository, Tag, parse_reference

from ..values import ODD_NAMES, repositories, tags

TAGS = ["latest", "v1.0-rc_1", "_", "0", "A.B-C", "a" * 128, "sha256-" + "0" * 64]
BAD_NAMES = [
    *("", "/", "a/", "/a", "a//b", "A", "a/B", "a.", ".a", "..", "../a", "a/../b", "a/.", "a..b", "a-"),
    *("a___b", "-a", "_a", "a._b", "a:b", "a@b", "a b", "a\n", "a\x00", "a%2fb", "é", "a/é", "\uff41"),
    *("a\\b", "a" * 256, "a/" * 127 + "aa"),
]
BAD_TAGS = ["", ".a", "-a", "a" * 129, "a/b", "a b", "a\n", "a\x00", "é", "a:b", "a@b", "a%20"]


@pytest.mark.parametrize(
    ("parse", "name"), [(Repository.parse, name) for name in ODD_NAMES] + [(Tag.parse, name) for name in TAGS]
)
def test_names_are_accepted(parse: Callable[[str], Repository | Tag], name: str) -> None:
    """The grammar knows no reserved words."""
    assert parse(name).name == name


@pytest.mark.parametrize(
    ("parse", "error", "name"),
    [(Repository.parse, NameInvalid, name) for name in BAD_NAMES]
    + [(Tag.parse, TagInvalid, name) for name in BAD_TAGS],
)
def test_invalid_names_are_rejected(
    parse: Callable[[str], object], error: type[RegistryError], name: str
) -> None:
    """Each kind of name has its own error, with status 400."""
    with pytest.raises(error) as caught:
        parse(name)
    assert caught.value.status == 400


def test_a_colon_makes_it_a_digest() -> None:
    """Tags have none: what has one is a digest, or is wrong as such."""
    assert parse_reference(f"sha256:{'0' * 64}") == Digest("sha256", "0" * 64)
    with pytest.raises(DigestInvalid):
        parse_reference("sha256:0")


@given(repositories)
def test_a_name_has_a_first_part_and_a_rest(repository: Repository) -> None:
    """Put together they are the name; one of a single component has no rest."""
    assert "/" not in repository.first
    assert "/".join(filter(None, (repository.first, repository.rest))) == repository.name


@given(tags, tags, repositories, repositories)
def test_they_have_an_order(tag: Tag, other_tag: Tag, one: Repository, other: Repository) -> None:
    """Repositories and tags sort by name, as registries list them."""
    assert (tag < other_tag) is (tag.name < other_tag.name)
    assert (one < other) is (one.name < other.name)
