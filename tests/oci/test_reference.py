"""Names of repositories and of manifests."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import DigestInvalid, NameInvalid, RegistryError, TagInvalid
from dockmirror.oci.reference import Reference, Repository, Tag, parse_reference

from ..values import ODD_NAMES, attempt, references, repositories, tags

PARSERS: list[Callable[[str], Repository | Reference]] = [Repository.parse, parse_reference]
ODD = st.text() | st.text("aZ0._-/:@%\n\x00é", max_size=20)


@given(repositories)
def test_a_repository_that_is_written_is_read_again(repository: Repository) -> None:
    """Whatever the grammar allows."""
    assert Repository.parse(str(repository)) == repository


@given(references)
def test_a_reference_that_is_written_is_read_again(reference: Reference) -> None:
    """A tag stays a tag, a digest a digest."""
    assert parse_reference(str(reference)) == reference


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_names(name: str) -> None:
    """The grammar knows no reserved words."""
    assert Repository.parse(name).name == name


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "A",
            "a/B",
            "a.",
            ".a",
            "..",
            "../a",
            "a/../b",
            "a/.",
            "a..b",
            "a___b",
        ),
        *(
            "a-",
            "-a",
            "_a",
            "a._b",
            "a:b",
            "a@b",
            "a b",
            "a\n",
            "a\x00",
            "a%2fb",
            "é",
            "a/é",
            "\uff41",
            "a\\b",
        ),
        *("a" * 256, "a/" * 127 + "aa"),
    ],
)
def test_what_is_no_name_is_refused(name: str) -> None:
    """Invalid names raise NAME_INVALID."""
    with pytest.raises(NameInvalid) as caught:
        Repository.parse(name)
    assert caught.value.status == 400


@pytest.mark.parametrize("name", ["latest", "v1.0-rc_1", "_", "0", "A.B-C", "a" * 128, "sha256-" + "0" * 64])
def test_tags_are_tags(name: str) -> None:
    """Letters in both cases, digits, and three signs that it may not begin with, but for the underscore."""
    assert Tag.parse(name).name == name


@pytest.mark.parametrize(
    "name", ["", ".a", "-a", "a" * 129, "a/b", "a b", "a\n", "a\x00", "é", "a:b", "a@b", "a%20"]
)
def test_what_is_no_tag_is_refused(name: str) -> None:
    """Invalid tags raise TAG_INVALID."""
    with pytest.raises(TagInvalid) as caught:
        Tag.parse(name)
    assert caught.value.status == 400


def test_a_colon_makes_it_a_digest() -> None:
    """Tags have none: what has one is a digest, or is wrong as such."""
    assert parse_reference(f"sha256:{'0' * 64}") == Digest("sha256", "0" * 64)
    with pytest.raises(DigestInvalid):
        parse_reference("sha256:0")


@given(ODD)
def test_no_text_does_worse_than_being_refused(text: str) -> None:
    """Any text is rejected, or written as it was parsed."""
    for parse in PARSERS:
        value = attempt(parse, text)
        assert value.status == 400 if isinstance(value, RegistryError) else str(value) == text


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
