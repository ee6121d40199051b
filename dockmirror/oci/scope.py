"""Scopes: what a token is asked for.

Source: distribution's token specification, "Requesting a Token" (``type:name:action,action``, several
separated by spaces or by repeated parameters).  A name may itself hold colons (a host with a port);
what has not that shape (public.ecr.aws asks for ``aws``) is carried as it is.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import evolve, frozen


@frozen
class Scope:
    """One resource and what is to be done with it; both empty where the scope is a mere word."""

    type: str
    name: str = ""
    actions: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Scope:
        """Never fails: any text is some scope."""
        kind, _, rest = text.partition(":")
        name, colon, actions = rest.rpartition(":")
        return cls(kind, name, tuple(actions.split(","))) if colon else cls(text)

    def __str__(self) -> str:
        return f"{self.type}:{self.name}:{','.join(self.actions)}" if self.actions else self.type

    @property
    def is_repository(self) -> bool:
        """Whether this is access to a repository, whose name a mirror may have to complete."""
        return self.type.partition("(")[0] == "repository" and bool(self.actions)

    def renamed(self, name: str) -> Scope:
        """The same access to another repository."""
        return evolve(self, name=name)


def pull_scope(repository: object) -> Scope:
    """The scope that pulls from a repository."""
    return Scope("repository", str(repository), ("pull",))


CATALOG = Scope("registry", "catalog", ("*",))


def parse_scopes(values: Iterable[str]) -> tuple[Scope, ...]:
    """The scopes of all ``scope`` parameters, each of which may hold several; without duplicates."""
    return tuple(dict.fromkeys(Scope.parse(text) for value in values for text in value.split()))
