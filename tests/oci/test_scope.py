"""Scopes: what a token is asked for, however it is written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.oci.reference import Repository
from dockmirror.oci.scope import CATALOG, Scope, parse_scopes, pull_scope

from ..values import names

ACTIONS = st.lists(st.sampled_from(["pull", "push", "delete", "*"]), min_size=1, max_size=3).map(tuple)
HOSTS = st.sampled_from(["", "localhost:5000/", "registry.example:443/", "[::1]:5000/"])
TYPES = st.sampled_from(["repository", "repository(plugin)", "registry", "x"])
SCOPES = st.builds(
    Scope, TYPES, st.tuples(HOSTS, names).map("".join), ACTIONS
) | st.sampled_from([CATALOG, Scope("aws")])  # fmt: skip


@given(SCOPES)
def test_what_is_written_is_read_again(scope: Scope) -> None:
    """A scope is parsed as it was written, also if its name has a host and port."""
    assert Scope.parse(str(scope)) == scope


@given(st.text() | st.text("repository:,/ab(*) ", max_size=40))
def test_every_text_is_some_scope(text: str) -> None:
    """It is carried as it came, whatever it may mean to the token service."""
    assert str(Scope.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "scope"),
    [
        ("repository:library/busybox:pull", Scope("repository", "library/busybox", ("pull",))),
        ("repository:a/b:pull,push", Scope("repository", "a/b", ("pull", "push"))),
        ("repository:host:5000/a:pull", Scope("repository", "host:5000/a", ("pull",))),
        ("repository(plugin):a/b:pull", Scope("repository(plugin)", "a/b", ("pull",))),
        ("registry:catalog:*", CATALOG),
        ("aws", Scope("aws")),
        ("a:b", Scope("a:b")),
    ],
)
def test_it_has_a_type_a_name_and_actions(text: str, scope: Scope) -> None:
    """A scope has type, name and actions; other text is a mere word."""
    assert Scope.parse(text) == scope


@pytest.mark.parametrize(
    ("text", "repository"),
    [
        ("repository:busybox:pull", True),
        ("repository(plugin):a/b:pull", True),
        ("registry:catalog:*", False),
        ("repository", False),
        ("repository:busybox", False),
        ("repositories:busybox:pull", False),
        ("aws", False),
    ],
)
def test_only_a_repository_has_a_name_to_complete(text: str, repository: bool) -> None:
    """Other resources are left as they are."""
    assert Scope.parse(text).is_repository is repository


def test_another_repository_is_asked_for_with_the_same_actions() -> None:
    """Renaming keeps actions and type."""
    scope = Scope("repository(plugin)", "a", ("pull", "push"))
    assert str(scope.renamed("library/a")) == "repository(plugin):library/a:pull,push"


def test_pulling_takes_one_action() -> None:
    """ghcr.io refuses anybody who asks to push beside."""
    assert str(pull_scope(Repository("a/b"))) == "repository:a/b:pull"


@given(st.lists(SCOPES), st.data())
def test_they_may_be_repeated_or_separated(scopes: list[Scope], data: st.DataObject) -> None:
    """Scopes may be repeated or separated by spaces; duplicates are dropped, order is kept."""
    values: list[str] = []
    for scope in scopes:
        joined: bool = data.draw(st.booleans())
        if values and joined:
            values[-1] += f"  {scope}"
        else:
            values.append(str(scope))
    assert parse_scopes(values) == tuple(dict.fromkeys(scopes))


def test_no_scope_is_none() -> None:
    """A login asks for none; an empty parameter is none either."""
    assert parse_scopes([]) == parse_scopes([""]) == parse_scopes([" "]) == ()
