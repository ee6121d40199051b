"""Patterns of repositories, whether others leave anything for one to match, and versions in tags."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.oci.pull_rule import PullRule, Version, VersionRange, is_covered
from dockmirror.oci.request import Repository, Tags

globs = st.lists(st.sampled_from(["a", "b", "/", "*", "**", "?"]), min_size=1, max_size=4).map("".join)
NAMES = ["".join(each) for size in range(1, 6) for each in product("ab/", repeat=size)]
texts = st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), max_size=30)
numbers = st.lists(st.integers(0, 10**6), min_size=1, max_size=4).map(tuple)


@pytest.mark.parametrize(
    ("glob", "others", "covered"),
    [
        ("team/app", ["team/app"], True),
        ("team/app", ["team/*"], True),
        ("team/*", ["team/**"], True),
        ("team/**", ["team/*"], False),
        ("team/*", ["team/a*", "team/b*"], False),
        ("team/?", ["other/*", "*/*"], True),
        ("**", ["*", "*/**"], True),
        ("team/*", [], False),
    ],
)
def test_a_pattern_is_covered_by_others(glob: str, others: list[str], covered: bool) -> None:
    assert is_covered(glob, others) is covered


@given(glob=globs, others=st.lists(globs, max_size=3))
def test_a_covered_pattern_matches_nothing_else(glob: str, others: list[str]) -> None:
    """All names are tried that are short."""
    rule, rules = PullRule.parse(glob), [PullRule.parse(each) for each in others]
    alone = [
        name
        for name in NAMES
        if rule.matches_repository(target := Tags(Repository(name)))
        and not any(each.matches_repository(target) for each in rules)
    ]
    if is_covered(glob, others):
        assert alone == []


def test_many_wildcards_are_given_up() -> None:
    """It would take minutes to find out; then only the same pattern counts as covered."""
    others = [f"*-{letter}-*/*-{letter}-*" for letter in "abcdefghij"]
    assert not is_covered("*-a-*/*-b-*-a-*", others)
    assert is_covered(others[3], others)


@given(glob=globs, others=st.lists(globs, max_size=2))
def test_a_pattern_covers_itself(glob: str, others: list[str]) -> None:
    """Among others, too, and whatever follows it."""
    assert is_covered(glob, [*others, glob])


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("1.27.3", Version((1, 27, 3))),
        ("v2", Version((2,))),
        ("22.04-slim", Version((22, 4), "-slim")),
        ("1.0rc1", Version((1, 0), "rc1")),
        ("latest", None),
        ("version1", None),
    ],
)
def test_a_tag_that_begins_with_a_number_names_a_version(tag: str, expected: Version | None) -> None:
    assert Version.parse(tag) == expected


def test_versions_are_ordered_by_their_numbers() -> None:
    """A release is newer than its candidates, and 10 is newer than 9, in suffixes too."""
    tags = ["1.9", "1.10-rc.2", "1.10-rc.10", "1.10", "1.10.1", "2-alpine3.9", "2-alpine3.20", "10"]
    parsed = [version for tag in tags if (version := Version.parse(tag))]
    assert sorted(set(parsed), key=lambda each: each.order) == parsed


@pytest.mark.parametrize(
    ("text", "tag", "expected"),
    [
        (">=1.25 <2", "1.25.0", True),
        (">=1.25 <2", "v1.99.9", True),
        (">=1.25 <2", "1.24.9", False),
        (">=1.25 <2", "2.0.0", False),
        (">=1.25 <2", "2.0.0-rc.1", False),
        (">=1.25 <2", "1.27", False),
        ("=1.2.3", "1.2.3-alpine", True),
        (">1.2.3 <=1.3", "1.3.0", True),
        (">1.2.3 <=1.3", "1.2.3", False),
    ],
)
def test_a_range_contains_complete_versions(text: str, tag: str, expected: bool) -> None:
    version = Version.parse(tag)
    assert version is not None
    assert VersionRange.parse(text).contains(version) is expected


@pytest.mark.parametrize("text", ["", "1.2", "^1.2", ">= 1", ">=1.2.3.4", "<latest", ">=1,<2"])
def test_other_texts_are_no_ranges(text: str) -> None:
    with pytest.raises(ValueError, match="expected comparators"):
        VersionRange.parse(text)


@given(numbers, numbers)
def test_numbers_are_read_as_they_were_written(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    """The order is that of the numbers."""
    first, second = (Version.parse(".".join(map(str, each))) for each in (one, other))
    assert first is not None
    assert second is not None
    assert first.numbers == one
    assert (first.order < second.order) == (one < other)


@given(texts, texts)
def test_every_tag_can_be_ordered(one: str, other: str) -> None:
    """Two versions are the same, or one is newer."""
    first, second = (Version.parse(f"1{text}") for text in (one, other))
    assert first is not None
    assert second is not None
    found = first.order < second.order, first.order == second.order, first.order > second.order
    assert sorted(found) == [False, False, True]
