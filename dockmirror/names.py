"""Names as clients write them and as registries know them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from attrs import evolve
from zope.interface import implementer

from .content.held import BytesContent
from .interfaces import Answer, IRegistry
from .oci.descriptor import Descriptor
from .oci.errors import NameUnknown
from .oci.reference import Repository
from .oci.request import Request, repository_of
from .oci.scope import Scope
from .oci.token import TokenRequest


def completed(repository: Repository) -> Repository:
    """Docker Hub's name of a repository: one of a single component is an official image."""
    return repository if "/" in repository.name else Repository(f"library/{repository}")


def _completed_scope(scope: Scope) -> Scope:
    if not scope.is_repository or "/" in scope.name or not scope.name:
        return scope
    return scope.renamed(f"library/{scope.name}")


@implementer(IRegistry)
class ShortNames:
    """Completes Docker Hub's short names in place, in what is asked for and in scopes."""

    def __init__(self, registry: IRegistry) -> None:
        self._registry = registry

    async def fetch(self, request: Request) -> Answer:
        """See ``IRegistry``."""
        repository = repository_of(request.target)
        return await self._registry.fetch(
            request.for_repository(completed(repository)) if repository else request
        )

    async def token(self, request: TokenRequest) -> Answer:
        """See ``IRegistry``."""
        return await self._registry.token(request.map_scopes(_completed_scope))


@implementer(IRegistry)
class RedirectedNames:
    """Sends clients on to the completed name instead, at the price of a second round trip."""

    def __init__(self, registry: IRegistry) -> None:
        self._registry = registry

    async def fetch(self, request: Request) -> Answer:
        """See ``IRegistry``; the answer to a short name is a redirect."""
        repository = repository_of(request.target)
        if repository is None or "/" in repository.name:
            return await self._registry.fetch(request)
        moved = request.for_repository(completed(repository))
        return Answer(BytesContent(b"", Descriptor(size=0)), 301, location=moved.path_and_query())

    async def token(self, request: TokenRequest) -> Answer:
        """See ``IRegistry``; scopes are completed in place: no client follows a redirect of these."""
        return await self._registry.token(request.map_scopes(_completed_scope))


@implementer(IRegistry)
class Rewritten:
    """Asks for repositories by other names, as the operator wants it, in what is asked and in scopes.

    What clients see, challenges and pages of lists, keeps the names that they use.

    :param prefixes: whole components by which names begin, and what stands in their place; the longest
        that fits counts.
    """

    def __init__(self, registry: IRegistry, prefixes: Mapping[str, str]) -> None:
        self._registry = registry
        self._prefixes = sorted(prefixes.items(), key=lambda pair: -len(pair[0]))

    async def fetch(self, request: Request) -> Answer:
        """See ``IRegistry``."""
        repository = repository_of(request.target)
        if repository is None:
            return await self._registry.fetch(request)
        return await self._registry.fetch(request.for_repository(Repository(self._name(repository.name))))

    async def token(self, request: TokenRequest) -> Answer:
        """See ``IRegistry``."""
        return await self._registry.token(request.map_scopes(self._scope))

    def _scope(self, scope: Scope) -> Scope:
        return scope.renamed(self._name(scope.name)) if scope.is_repository else scope

    def _name(self, name: str) -> str:
        for prefix, other in self._prefixes:
            if f"{name}/".startswith(f"{prefix}/"):
                return other + name.removeprefix(prefix)
        return name


@implementer(IRegistry)
class Namespace:
    """Answers for one registry only, where a client says which one it means by ``ns``.

    Source: OCI distribution specification, "Registry Proxying".
    """

    def __init__(self, registry: IRegistry, names: Collection[str]) -> None:
        self._registry = registry
        self._names = frozenset(name.lower() for name in names)

    async def fetch(self, request: Request) -> Answer:
        """See ``IRegistry``.

        :raises NameUnknown: when another registry is meant, so that the client goes there.
        """
        namespace = request.namespace
        if namespace is None:
            return await self._registry.fetch(request)
        if namespace.lower() not in self._names:
            raise NameUnknown(
                f"this host mirrors {', '.join(sorted(self._names))} and not the registry that 'ns' names"
            )
        answer = await self._registry.fetch(evolve(request, namespace=None))
        return evolve(answer, headers=(*answer.headers, ("OCI-Namespace", namespace)))

    async def token(self, request: TokenRequest) -> Answer:
        """See ``IRegistry``."""
        return await self._registry.token(request)
