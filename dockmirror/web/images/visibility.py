"""The repositories that a viewer of the pages may see.

A page shows nothing that the mirror would not give to the viewer without asking the upstream:

- to everybody, what the upstream has given to an anonymous request in the last day, and what the operator has
  imported;
- to users of the mirror, also what its own accounts were given in the last day;
- none of it, if the operator's rules deny it.

A repository that a client has pulled with credentials of its own is neither.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from attrs import frozen

from ...oci.digest import Digest
from ...oci.errors import Denied, NameInvalid
from ...oci.request import InRepository, Manifest, Repository, Tag, Tags
from ...pullthrough.grants import PUBLIC_TTL, PublicRepositories


class Rules(Protocol):
    """The operator's rules for an upstream; see ``PullRules``."""

    def check(self, target: InRepository) -> None:
        """:raises Denied: when the rules do not allow the target."""

    def check_denied(self, target: InRepository) -> None:
        """:raises Denied: when the rules deny just this target."""


class Viewer(Protocol):
    """A client that looks at the pages."""

    async def sources(self, name: str) -> Sequence[str]:
        """Return the upstreams that give a repository to it, whose name begins with the registry.

        The names are those in the settings.  Without any, the viewer may not see the repository.
        """

    async def may_see_image(self, name: str, tag: Tag | None, digest: Digest) -> bool:
        """Return whether it may see an image of a repository."""


class OperatorViewer:
    """A client of the operations endpoint, which shows everything.

    :param upstreams: returns the upstreams of a registry.
    """

    def __init__(self, upstreams: Callable[[str], Sequence[str]]) -> None:
        self._upstreams = upstreams

    async def sources(self, name: str) -> Sequence[str]:
        return self._upstreams(name.partition("/")[0]) or ("",)

    async def may_see_image(self, name: str, tag: Tag | None, digest: Digest) -> bool:
        return True


@frozen
class VisibleUpstream:
    """An upstream, as far as it decides who may see what.

    :ivar name: its name in the settings.
    :ivar registry: the first part of its repositories' names in the store.
    :ivar has_account: returns True if ``public`` tells what an account of the mirror's own was given.
    """

    name: str
    registry: str
    public: PublicRepositories
    has_account: Callable[[Repository], bool]
    rules: Rules


class ClientViewer:
    """A client of the mirror's own host.

    :param is_user: True if the mirror knows its name, and its password.
    """

    def __init__(self, upstreams: Sequence[VisibleUpstream], is_user: bool) -> None:
        self._upstreams = upstreams
        self._is_user = is_user

    async def sources(self, name: str) -> Sequence[str]:
        return [
            upstream.name
            for upstream, repository in self._upstreams_of(name)
            if _allows(upstream.rules, Tags(repository)) and await _is_given(upstream, repository, None)
        ]

    async def may_see_image(self, name: str, tag: Tag | None, digest: Digest) -> bool:
        for upstream, repository in self._upstreams_of(name):
            target = Manifest(repository, tag or digest)
            if (
                _allows(upstream.rules, target)
                and not _denies(upstream.rules, Manifest(repository, digest))
                and await _is_given(upstream, repository, digest)
            ):
                return True
        return False

    def _upstreams_of(self, name: str) -> list[tuple[VisibleUpstream, Repository]]:
        registry, _, rest = name.partition("/")
        try:
            repository = Repository.parse(rest)
        except NameInvalid:
            return []
        return [
            (each, repository)
            for each in self._upstreams
            if each.registry == registry and (self._is_user or not each.has_account(repository))
        ]


async def _is_given(upstream: VisibleUpstream, repository: Repository, digest: Digest | None) -> bool:
    if await upstream.public.age(repository) < PUBLIC_TTL:
        return True
    return await upstream.public.is_imported(repository, digest)


def _allows(rules: Rules, target: InRepository) -> bool:
    try:
        rules.check(target)
    except Denied:
        return False
    return True


def _denies(rules: Rules, target: InRepository) -> bool:
    try:
        rules.check_denied(target)
    except Denied:
        return True
    return False
