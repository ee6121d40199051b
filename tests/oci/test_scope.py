"""Scopes: what a token is asked for, however it is written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.oci.reference import Repository
from dockmirror.oci.scope import CATALOG, Scope, parse_scopes, pull_scope

from ..values import scopes


def test_renaming_a_scope_keeps_type_and_actions() -> None:
    scope = Scope("repository(plugin)", "a", ("pull", "push"))
    assert str(scope.renamed("library/a")) == "repository(plugin):library/a:pull,push"


def test_pulling_takes_one_action() -> None:
    """ghcr.io refuses anybody who asks to push beside."""
    assert str(pull_scope(Repository("a/b"))) == "repository:a/b:pull"


@pytest.mark.parametrize(
    ("text", "scope", "is_repository"),
    [
        ("repository:library/busybox:pull", Scope("repository", "library/busybox", ("pull",)), True),
        ("repository:a/b:pull,push", Scope("repository", "a/b", ("pull", "push")), True),
        ("repository:host:5000/a:pull", Scope("repository", "host:5000/a", ("pull",)), True),
        ("repository(plugin):a/b:pull", Scope("repository(plugin)", "a/b", ("pull",)), True),
        ("registry:catalog:*", CATALOG, False),
        ("aws", Scope("aws"), False),
        ("repository:busybox", Scope("repository:busybox"), False),
        ("repositories:busybox:pull", Scope("repositories", "busybox", ("pull",)), False),
    ],
)
def test_a_scope_has_type_name_and_actions(text: str, scope: Scope, is_repository: bool) -> None:
    """Other text is a mere word; only the name of a repository can be completed."""
    assert Scope.parse(text) == scope
    assert scope.is_repository is is_repository


@given(st.lists(scopes), st.data())
def test_they_may_be_repeated_or_separated(drawn: list[Scope], data: st.DataObject) -> None:
    """Scopes may be repeated or separated by spaces; duplicates are dropped, order is kept."""
    values: list[str] = []
    for scope in drawn:
        joined: bool = data.draw(st.booleans())
        if values and joined:
            values[-1] += f"  {scope}"
        else:
            values.append(str(scope))
    assert parse_scopes(values) == tuple(dict.fromkeys(drawn))
    assert parse_scopes(["", " "]) == ()
