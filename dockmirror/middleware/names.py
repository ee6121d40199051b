"""Names as clients write them and as registries know them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from attrs import evolve
from zope.interface import implementer

from ..body.in_memory import BytesBody
from ..interfaces import Answer, IBody, IRegistry, IWritableRegistry
from ..oci.descriptor import Descriptor
from ..oci.errors import NameUnknown
from ..oci.reference import Repository
from ..oci.request import RegistryRequest, repository_of
from ..oci.scope import Scope
from ..oci.token import TokenRequest
from ..oci.write import Write, WriteResult


def complete_short_name(repository: Repository) -> Repository:
    """Docker Hub's name of a repository: one of a single component is an official image."""
    return repository if "/" in repository.name else Repository(f"library/{repository}")


def rewrite_prefix(repository: Repository, prefixes: Mapping[str, str]) -> Repository:
    """The name by which the operator has a repository asked for; see ``PrefixRewrite``."""
    for prefix, other in sorted(prefixes.items(), key=lambda pair: -len(pair[0])):
        if f"{repository}/".startswith(f"{prefix}/"):
            return Repository(other + repository.name.removeprefix(prefix))
    return repository


def _completed_scope(scope: Scope) -> Scope:
    if not scope.is_repository or "/" in scope.name or not scope.name:
        return scope
    return scope.renamed(f"library/{scope.name}")


@implementer(IRegistry)
class ShortNames:
    """Completes Docker Hub's short names in place, in what is asked for and in scopes."""

    def __init__(self, registry: IRegistry) -> None:
        self._registry = registry

    async def fetch(self, request: RegistryRequest) -> Answer:
        """See ``IRegistry``."""
        repository = repository_of(request.target)
        return await self._registry.fetch(
            request.for_repository(complete_short_name(repository)) if repository else request
        )

    async def token(self, request: TokenRequest) -> Answer:
        """See ``IRegistry``."""
        return await self._registry.token(request.map_scopes(_completed_scope))


@implementer(IRegistry)
class ShortNameRedirect:
    """Sends clients on to the completed name instead, at the price of a second round trip."""

    def __init__(self, registry: IRegistry) -> None:
        self._registry = registry

    async def fetch(self, request: RegistryRequest) -> Answer:
        """See ``IRegistry``; the answer to a short name is a redirect."""
        repository = repository_of(request.target)
        if repository is None or "/" in repository.name:
            return await self._registry.fetch(request)
        moved = request.for_repository(complete_short_name(repository))
        return Answer(BytesBody(b"", Descriptor(size=0)), 301, location=moved.path_and_query())

    async def token(self, request: TokenRequest) -> Answer:
        """See ``IRegistry``; scopes are completed in place: no client follows a redirect of these."""
        return await self._registry.token(request.map_scopes(_completed_scope))


@implementer(IRegistry)
class PrefixRewrite:
    """Asks for repositories by other names, as the operator wants it, in what is asked and in scopes.

    What clients see, challenges and pages of lists, keeps the names that they use.

    :param prefixes: whole components by which names begin, and what stands in their place; the longest
        that fits counts.
    """

    def __init__(self, registry: IRegistry, prefixes: Mapping[str, str]) -> None:
        self._registry = registry
        self._prefixes = prefixes

    async def fetch(self, request: RegistryRequest) -> Answer:
        """See ``IRegistry``."""
        repository = repository_of(request.target)
        if repository is None:
            return await self._registry.fetch(request)
        return await self._registry.fetch(request.for_repository(rewrite_prefix(repository, self._prefixes)))

    async def token(self, request: TokenRequest) -> Answer:
        """See ``IRegistry``."""
        return await self._registry.token(request.map_scopes(self._scope))

    def _scope(self, scope: Scope) -> Scope:
        if not scope.is_repository:
            return scope
        return scope.renamed(rewrite_prefix(Repository(scope.name), self._prefixes).name)


@implementer(IRegistry)
class NamespaceFilter:
    """Answers for one registry only, where a client says which one it means by ``ns``.

    Source: OCI distribution specification, "Registry Proxying".
    """

    def __init__(self, registry: IRegistry, names: Collection[str]) -> None:
        self._registry = registry
        self._names = frozenset(name.lower() for name in names)

    async def fetch(self, request: RegistryRequest) -> Answer:
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


@implementer(IWritableRegistry)
class WriteNameRewrite:
    """Writes to repositories by other names, those of what is mounted included.

    :param name: the name by which the registry is asked.
    """

    def __init__(self, writes: IWritableRegistry, name: Callable[[Repository], Repository]) -> None:
        self._writes = writes
        self._name = name

    async def write(self, write: Write, body: IBody) -> WriteResult:
        """See ``IWritableRegistry``."""
        return await self._writes.write(write.renamed(self._name), body)


@implementer(IWritableRegistry)
class WriteNamespaceFilter:
    """Writes to one registry only, where a client says which one it means by ``ns``."""

    def __init__(self, writes: IWritableRegistry, names: Collection[str]) -> None:
        self._writes = writes
        self._names = frozenset(name.lower() for name in names)

    async def write(self, write: Write, body: IBody) -> WriteResult:
        """See ``IWritableRegistry``.

        :raises NameUnknown: when another registry is meant.
        """
        if write.namespace is not None and write.namespace.lower() not in self._names:
            raise NameUnknown(
                f"this host writes to {', '.join(sorted(self._names))}, and 'ns' names another registry"
            )
        return await self._writes.write(evolve(write, namespace=None), body)
