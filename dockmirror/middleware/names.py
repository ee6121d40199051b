"""Names of repositories and registries: as clients write them and as registries know them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial

from attrs import evolve
from zope.interface import implementer

from ..body.bodies import BytesBody
from ..interfaces import Answer, IBody, IRegistry, ITokenService, IUpstream, IWritableRegistry
from ..oci.digest import Descriptor
from ..oci.errors import NameUnknown, RegistryError, Unsupported
from ..oci.request import Catalog, RegistryRequest, Repository, complete_short_name, repository_of
from ..oci.token import Scope, TokenRequest
from ..oci.write import Write, WriteResult


@implementer(IRegistry)
class NameRewrite:
    """Asks for repositories by the names that the registry knows them by; clients keep seeing their own.

    :param rename: returns the registry's name for a client's.
    """

    def __init__(self, registry: IRegistry, rename: Callable[[Repository], Repository]) -> None:
        self._registry = registry
        self._rename = rename

    async def fetch(self, request: RegistryRequest) -> Answer:
        repository = repository_of(request.target)
        renamed = request if repository is None else request.for_repository(self._rename(repository))
        return await self._registry.fetch(renamed)


@implementer(IRegistry)
class ShortNameRedirect:
    """Redirects clients to the complete name, at the price of a second round trip."""

    def __init__(self, registry: IRegistry) -> None:
        self._registry = registry

    async def fetch(self, request: RegistryRequest) -> Answer:
        """Answer a short name with a redirect."""
        repository = repository_of(request.target)
        if repository is None or "/" in repository.name:
            return await self._registry.fetch(request)
        moved = request.for_repository(complete_short_name(repository))
        return Answer(BytesBody(b"", Descriptor(size=0)), 301, location=moved.path_and_query())


@implementer(ITokenService)
class ScopeRewrite:
    """Asks for tokens of repositories by the names that the registry knows them by.

    :param rename: returns the registry's name for a client's.
    """

    def __init__(self, tokens: ITokenService, rename: Callable[[Repository], Repository]) -> None:
        self._tokens = tokens
        self._rename = rename

    async def token(self, request: TokenRequest) -> Answer:
        return await self._tokens.token(request.map_scopes(self._renamed))

    def _renamed(self, scope: Scope) -> Scope:
        if not scope.is_repository or not scope.name:
            return scope
        return scope.renamed(self._rename(Repository(scope.name)).name)


def add_prefix(prefix: str, repository: Repository) -> Repository:
    """Return the repository of that name below a prefix."""
    return Repository(f"{prefix}/{repository}")


@implementer(IUpstream)
class PrefixedUpstream:
    """An upstream whose repositories all lie below one prefix, such as a proxy project of Harbor."""

    def __init__(self, upstream: IUpstream, prefix: str) -> None:
        rename = partial(add_prefix, prefix)
        self._registry = NameRewrite(upstream, rename)
        self._tokens = ScopeRewrite(upstream, rename)

    async def fetch(self, request: RegistryRequest) -> Answer:
        """:raises Unsupported: for the catalog, whose names and pages are those of the whole registry."""
        if isinstance(request.target, Catalog):
            raise Unsupported("the catalog of an upstream with a path in its URL is not served", status=404)
        return await self._registry.fetch(request)

    async def token(self, request: TokenRequest) -> Answer:
        return await self._tokens.token(request)


@implementer(IRegistry)
class NamespaceFilter:
    """Refuses requests whose ``ns`` names another registry.

    Source: OCI distribution specification, "Registry Proxying".
    """

    def __init__(self, registry: IRegistry, names: Collection[str]) -> None:
        self._registry = registry
        self._names = frozenset(name.lower() for name in names)

    async def fetch(self, request: RegistryRequest) -> Answer:
        """:raises NameUnknown: when ``ns`` names another registry, so that the client goes there."""
        namespace = request.namespace
        if namespace is None:
            return await self._registry.fetch(request)
        _check_namespace(namespace, self._names, "mirrors")
        answer = await self._registry.fetch(evolve(request, namespace=None))
        return evolve(answer, headers=(*answer.headers, ("OCI-Namespace", namespace)))


@implementer(IWritableRegistry)
class WriteNameRewrite:
    """Writes to repositories by other names, also to those that blobs are mounted from.

    :param rename: returns the registry's name for a client's.
    """

    def __init__(self, writes: IWritableRegistry, rename: Callable[[Repository], Repository]) -> None:
        self._writes = writes
        self._rename = rename

    async def write(self, write: Write, body: IBody) -> WriteResult:
        return await self._writes.write(write.renamed(self._rename), body)


@implementer(IWritableRegistry)
class WriteNamespaceFilter:
    """Refuses writes whose ``ns`` names another registry."""

    def __init__(self, writes: IWritableRegistry, names: Collection[str]) -> None:
        self._writes = writes
        self._names = frozenset(name.lower() for name in names)

    async def write(self, write: Write, body: IBody) -> WriteResult:
        """:raises NameUnknown: when ``ns`` names another registry."""
        if write.namespace is not None:
            _check_namespace(write.namespace, self._names, "writes to")
        return await self._writes.write(evolve(write, namespace=None), body)


def _check_namespace(namespace: str, names: Collection[str], verb: str) -> None:
    if namespace.lower() not in names:
        raise NameUnknown(f"this host {verb} {', '.join(sorted(names))}, but 'ns' names another registry")


@implementer(IRegistry)
class RegistryRouter:
    """Chooses the registry by ``ns``, by the repository's first component, or the default.

    With ``ns`` the path is a name in that registry, which may begin with another one's: a proxy project of
    Harbor has the name of what it mirrors.

    :param registries: registries by canonical name and by alias, in lower case.
    :param default: the registry of requests that name none.
    :param upstreams: the canonical names of the registries, by the names of their upstreams in the settings.
    """

    def __init__(
        self, registries: Mapping[str, IRegistry], default: IRegistry, upstreams: Mapping[str, str]
    ) -> None:
        self._registries = registries
        self._default = default
        self._upstreams = upstreams

    async def fetch(self, request: RegistryRequest) -> Answer:
        """Answer with the registry that the request names.

        :raises NameUnknown: when the registry is not mirrored.
        :raises Unsupported: for a catalog without ``ns``: there is none of all registries.
        """
        named = self._named(request.namespace)
        if named is None and isinstance(request.target, Catalog):
            raise Unsupported(
                "this mirror lists no repositories, since most registries have no catalog; the operator sees"
                " the cached images by 'dockmirror ls'",
                status=404,
            )
        repository = repository_of(request.target)
        registry = named or self._default
        if repository is not None and repository.rest:
            by_path = self._registries.get(repository.first)
            if by_path is None and named is None and "." in repository.first:
                raise NameUnknown(f"the registry {repository.first} is not mirrored here")
            if by_path is not None and named in (None, by_path):
                registry, request = by_path, request.for_repository(Repository(repository.rest))
        if request.namespace is None:
            try:
                return await registry.fetch(request)
            except RegistryError as error:
                if registry is self._default and repository is not None:
                    self._add_hint(error, repository)
                raise
        answer = await registry.fetch(evolve(request, namespace=None))
        return _of_namespace(answer, request.namespace)

    def _add_hint(self, error: RegistryError, repository: Repository) -> None:
        """Name the registry that was meant if a path begins with the name of an upstream instead."""
        meant = self._upstreams.get(repository.first)
        if meant is not None and repository.rest and self._registries[meant] is not self._default:
            name = f"{meant}/{repository.rest}"
            error.add_hint(f"{repository.first} is the name of an upstream: its images are at {name} here")

    def _named(self, namespace: str | None) -> IRegistry | None:
        if namespace is None:
            return None
        registry = self._registries.get(namespace.lower())
        if registry is None:
            raise NameUnknown("the registry that 'ns' names is not mirrored here")
        return registry


def _of_namespace(answer: Answer, namespace: str) -> Answer:
    """Return the answer with the registry's name, which its next page names, too."""
    page = answer.next_page
    return evolve(
        answer,
        headers=(*answer.headers, ("OCI-Namespace", namespace)),
        next_page=None if page is None else (*page, ("ns", namespace)),
    )
