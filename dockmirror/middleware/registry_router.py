"""The mirror's own host, which serves every registry, by path or by ``ns``, anonymously.

Clients keep one login per host; here they would send it to whichever registry an image's name picks.
So clients are not challenged, and no credentials are accepted.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve
from zope.interface import implementer

from ..body.in_memory import json_body
from ..interfaces import Answer, IRegistry
from ..oci.errors import Denied, NameUnknown, Unauthorized, Unsupported
from ..oci.reference import Repository
from ..oci.request import Catalog, Ping, RegistryRequest, repository_of


@implementer(IRegistry)
class AnonymousOnly:
    """A registry for anonymous clients: it accepts no login, and passes no credentials on.

    :param name: the registry's name, for messages.
    :param host: the registry's virtual host, which accepts logins.
    """

    def __init__(self, registry: IRegistry, name: str, host: str) -> None:
        self._registry = registry
        self._name = name
        self._host = host

    async def fetch(self, request: RegistryRequest) -> Answer:
        """:raises Denied: for a login, and for content that the registry does not give to everybody."""
        if isinstance(request.target, Ping):
            if request.credentials is not None:
                raise Denied(f"this host takes no logins: log in to {self._host}")
            return Answer(json_body(b"{}"))
        try:
            return await self._registry.fetch(_anonymous(request))
        except Unauthorized as refused:
            raise Denied(
                f"{self._name} does not give this to everybody, or has no such image; private images:"
                f" docker login {self._host}",
                upstream_status=refused.upstream_status,
            ) from refused


def _anonymous(request: RegistryRequest) -> RegistryRequest:
    return request if request.credentials is None else evolve(request, credentials=None)


@implementer(IRegistry)
class RegistryRouter:
    """Chooses the registry by the repository's first component, by ``ns``, or the default.

    :param registries: registries by canonical name and by alias, in lower case.
    :param default: the registry of requests that name none.
    """

    def __init__(self, registries: Mapping[str, IRegistry], default: IRegistry) -> None:
        self._registries = registries
        self._default = default

    async def fetch(self, request: RegistryRequest) -> Answer:
        """Answer with the registry that the request names.

        :raises NameUnknown: when the registry is not mirrored, or ``ns`` and the path disagree.
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
            if by_path is not None and named not in (None, by_path):
                raise NameUnknown("'ns' and the path name different registries")
            if by_path is None and named is None and "." in repository.first:
                raise NameUnknown(f"the registry {repository.first} is not mirrored here")
            if by_path is not None:
                registry, request = by_path, request.for_repository(Repository(repository.rest))
        if request.namespace is None:
            return await registry.fetch(request)
        answer = await registry.fetch(evolve(request, namespace=None))
        return _of_namespace(answer, request.namespace)

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
