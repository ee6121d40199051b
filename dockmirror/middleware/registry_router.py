"""The mirror's own host: every registry by path or by ``ns``, anonymously.

Clients keep one login a host; here they would hand it to whichever registry an image's name picks.
So nobody is challenged, and no credential is taken.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve
from zope.interface import implementer

from ..body.in_memory import json_body
from ..interfaces import Answer, IRegistry
from ..oci.errors import Denied, NameUnknown, Unauthorized, Unsupported
from ..oci.reference import Repository
from ..oci.request import Ping, RegistryRequest, repository_of
from ..oci.token import TokenRequest


@implementer(IRegistry)
class AnonymousOnly:
    """One registry for those who bring no credentials; a client's are neither taken nor passed on.

    :param name: the registry's, for messages.
    :param host: its virtual host, which takes logins.
    """

    def __init__(self, registry: IRegistry, name: str, host: str) -> None:
        self._registry = registry
        self._name = name
        self._host = host

    async def fetch(self, request: RegistryRequest) -> Answer:
        """See ``IRegistry``.

        :raises Denied: for a login, and for what the registry does not give to everybody.
        """
        if isinstance(request.target, Ping):
            if request.credentials is not None:
                raise Denied(f"this host takes no logins: log in to {self._host}")
            return Answer(json_body(b"{}"))
        try:
            return await self._registry.fetch(_anonymous(request))
        except Unauthorized as refused:
            raise Denied(
                f"{self._name} does not give this to everybody, or has no such image: what is private is to"
                f" be had at {self._host}, after a login there",
                upstream_status=refused.upstream_status,
            ) from refused

    async def token(self, request: TokenRequest) -> Answer:
        """:raises Unsupported: always; nobody was sent here."""
        raise Unsupported("this host serves anonymously and has no tokens", status=404)


def _anonymous(request: RegistryRequest) -> RegistryRequest:
    return request if request.credentials is None else evolve(request, credentials=None)


@implementer(IRegistry)
class RegistryRouter:
    """Picks the registry by the repository's first part, by ``ns``, or takes the default one.

    :param registries: by canonical name and by alias, in lower case.
    :param default: the registry of what names none.
    """

    def __init__(self, registries: Mapping[str, IRegistry], default: IRegistry) -> None:
        self._registries = registries
        self._default = default

    async def fetch(self, request: RegistryRequest) -> Answer:
        """See ``IRegistry``.

        :raises NameUnknown: when the registry is not mirrored, or ``ns`` contradicts the path.
        """
        named = self._named(request.namespace)
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

    async def token(self, request: TokenRequest) -> Answer:
        """See ``AnonymousOnly``."""
        return await self._default.token(request)

    def _named(self, namespace: str | None) -> IRegistry | None:
        if namespace is None:
            return None
        registry = self._registries.get(namespace.lower())
        if registry is None:
            raise NameUnknown("the registry that 'ns' names is not mirrored here")
        return registry


def _of_namespace(answer: Answer, namespace: str) -> Answer:
    """The answer with the registry's name in it; and its next page is one of the same registry."""
    page = answer.next_page
    return evolve(
        answer,
        headers=(*answer.headers, ("OCI-Namespace", namespace)),
        next_page=None if page is None else (*page, ("ns", namespace)),
    )
