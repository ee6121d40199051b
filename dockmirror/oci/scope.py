"""Scopes of tokens.

Source: distribution's token specification, "Requesting a Token" (``type:name:action,action``, several
separated by spaces or by repeated parameters).  A name may contain colons (a host with a port); other text
(public.ecr.aws uses ``aws``) is kept verbatim.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import evolve, frozen


@frozen
class Scope:
    """A resource and the actions on it; a scope that is a mere word has neither name nor actions."""

    type: str
    name: str = ""
    actions: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Scope:
        """Parse a scope; every text is valid."""
        kind, _, rest = text.partition(":")
        name, colon, actions = rest.rpartition(":")
        return cls(kind, name, tuple(actions.split(","))) if colon else cls(text)

    def __str__(self) -> str:
        return f"{self.type}:{self.name}:{','.join(self.actions)}" if self.actions else self.type

    @property
    def is_repository(self) -> bool:
        """True for access to a repository, whose name the mirror may have to complete."""
        return self.type.partition("(")[0] == "repository" and bool(self.actions)

    def renamed(self, name: str) -> Scope:
        """Return the same access to another repository."""
        return evolve(self, name=name)


def pull_scope(repository: object) -> Scope:
    """Return the scope for pulling from a repository."""
    return Scope("repository", str(repository), ("pull",))


CATALOG = Scope("registry", "catalog", ("*",))


def parse_scopes(values: Iterable[str]) -> tuple[Scope, ...]:
    """Parse all ``scope`` parameters, each of which may hold several; without duplicates."""
    return tuple(dict.fromkeys(Scope.parse(text) for value in values for text in value.split()))
