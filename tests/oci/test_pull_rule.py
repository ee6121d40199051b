"""Patterns of repositories, and whether others leave anything for one to match."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.oci.pull_rule import PullRule, is_covered
from dockmirror.oci.request import Repository, Tags

globs = st.lists(st.sampled_from(["a", "b", "/", "*", "**", "?"]), min_size=1, max_size=4).map("".join)
NAMES = ["".join(each) for size in range(1, 6) for each in product("ab/", repeat=size)]


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
