"""Repositories and tags, parsed once at the edge, and other names of repositories.

Source: OCI distribution specification, "Pulling manifests": the grammar of ``<name>`` and ``<reference>``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from attrs import frozen

from .digest import Digest
from .errors import NameInvalid, TagInvalid

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_NAME_LIMIT = 255
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")


@frozen(order=True)
class Repository:
    """A repository's name within its registry."""

    name: str

    @classmethod
    def parse(cls, text: str) -> Repository:
        """:raises NameInvalid: when the text is no repository name, or longer than 255 characters."""
        if len(text) > _NAME_LIMIT:
            raise NameInvalid(f"invalid repository name: longer than {_NAME_LIMIT} characters")
        if not _NAME.fullmatch(text):
            raise NameInvalid("invalid repository name: expected lower-case components separated by slashes")
        return cls(text)

    def __str__(self) -> str:
        return self.name

    @property
    def first(self) -> str:
        """The first component; on the mirror's own host, it names the registry."""
        return self.name.partition("/")[0]

    @property
    def rest(self) -> str:
        """The name without its first component; empty if there is just one."""
        return self.name.partition("/")[2]


@frozen(order=True)
class Tag:
    """A name for a manifest that may be moved to another one."""

    name: str

    @classmethod
    def parse(cls, text: str) -> Tag:
        """:raises TagInvalid: when the text is no tag."""
        if not _TAG.fullmatch(text):
            raise TagInvalid("invalid tag: expected up to 128 of letters, digits, '_', '.' and '-'")
        return cls(text)

    def __str__(self) -> str:
        return self.name


Reference = Tag | Digest


def parse_reference(text: str) -> Reference:
    """Parse a tag or a digest; only a digest contains a colon.

    :raises TagInvalid: when it is neither.
    :raises DigestInvalid: when it contains a colon and is no digest.
    """
    return Digest.parse(text) if ":" in text else Tag.parse(text)


def image_name(repository: Repository, reference: Reference) -> str:
    """Return ``repository:tag`` or ``repository@digest``."""
    return f"{repository}{'@' if isinstance(reference, Digest) else ':'}{reference}"


def complete_short_name(repository: Repository) -> Repository:
    """Return Docker Hub's name of a repository: a single component is an official image."""
    return repository if "/" in repository.name else Repository(f"library/{repository}")


def rewrite_prefix(repository: Repository, prefixes: Mapping[str, str]) -> Repository:
    """Return the name with its longest matching prefix replaced."""
    for prefix, other in sorted(prefixes.items(), key=lambda pair: -len(pair[0])):
        if f"{repository}/".startswith(f"{prefix}/"):
            return Repository(other + repository.name.removeprefix(prefix))
    return repository
