"""Other names of a repository: those that clients may write, and those that registries know."""

from __future__ import annotations

from collections.abc import Mapping

from .reference import Repository


def complete_short_name(repository: Repository) -> Repository:
    """Return Docker Hub's name of a repository: a single component is an official image."""
    return repository if "/" in repository.name else Repository(f"library/{repository}")


def rewrite_prefix(repository: Repository, prefixes: Mapping[str, str]) -> Repository:
    """Return the name with its longest matching prefix replaced."""
    for prefix, other in sorted(prefixes.items(), key=lambda pair: -len(pair[0])):
        if f"{repository}/".startswith(f"{prefix}/"):
            return Repository(other + repository.name.removeprefix(prefix))
    return repository
