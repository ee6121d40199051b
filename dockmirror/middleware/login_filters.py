"""Registries that accept no login: of clients of the mirror's own host, or because the mirror has an account.

On the mirror's own host, clients keep one login, and would send it to whichever registry an image's name
picks.  So clients are not challenged there, and no credentials are accepted.
"""

from __future__ import annotations

from attrs import evolve
from zope.interface import implementer

from ..body.in_memory import json_body
from ..interfaces import Answer, IRegistry, IUpstream
from ..oci.errors import Denied, Unauthorized
from ..oci.request import Ping, RegistryRequest
from ..oci.token import TokenRequest


@implementer(IUpstream)
class ServiceAccountOnly:
    """Accepts no client's credentials, and challenges no client.

    :param name: the registry's name, for messages.
    """

    def __init__(self, registry: IRegistry, name: str) -> None:
        self._registry = registry
        self._name = name

    async def fetch(self, request: RegistryRequest) -> Answer:
        """Mark answers private, so that no cache in front serves them to strangers.

        :raises Denied: for a login, and for content that the registry does not give to the mirror.
        """
        if isinstance(request.target, Ping):
            if request.credentials is not None:
                raise self._no_logins()
            return Answer(json_body(b"{}"))
        try:
            answer = await self._registry.fetch(evolve(request, credentials=None))
        except Unauthorized as refused:
            raise Denied(
                f"{self._name} does not give this to this mirror, or has no such image",
                upstream_status=refused.upstream_status,
            ) from refused
        others = tuple(pair for pair in answer.headers if pair[0].lower() != "cache-control")
        cache = evolve(answer.cache, immutable=False) if answer.cache else None
        return evolve(answer, headers=(*others, ("Cache-Control", "private")), cache=cache)

    async def token(self, request: TokenRequest) -> Answer:
        """:raises Denied: always; no challenge sends clients here."""
        raise self._no_logins()

    def _no_logins(self) -> Denied:
        return Denied(
            f"this host takes no logins: the mirror uses its own account at {self._name} for all clients"
        )


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
