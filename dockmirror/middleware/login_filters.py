"""Registries that accept no login: of clients of the mirror's own host, or because the mirror has an account.

On the mirror's own host, clients keep one login, and would send it to whichever registry an image's name
picks.  So clients are not challenged there, and no credentials are accepted.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import evolve
from zope.interface import implementer

from ..body.in_memory import json_body
from ..interfaces import Answer, IRegistry, IUpstream
from ..oci.errors import Denied, Unauthorized
from ..oci.request import Ping, RegistryRequest
from ..oci.token import TokenRequest
from ..system.networks import port_suffix


class _LoginFilter:
    """Accepts no login, challenges no client, and passes no credentials on.

    :param no_logins: returns the answer to a login, by the port that the client used, such as ``:8080``.
    :param not_given: returns the answer to a request for content that the registry does not give.
    """

    def __init__(
        self, registry: IRegistry, no_logins: Callable[[str], str], not_given: Callable[[str], str]
    ) -> None:
        self._registry = registry
        self._no_logins = no_logins
        self._not_given = not_given

    async def fetch(self, request: RegistryRequest) -> Answer:
        """:raises Denied: for a login, and for content that the registry does not give."""
        port = port_suffix(request.received.requested_host) if request.received else ""
        if isinstance(request.target, Ping):
            if request.credentials is not None:
                raise Denied(self._no_logins(port))
            return Answer(json_body(b"{}"))
        if request.credentials is not None:
            request = evolve(request, credentials=None)
        try:
            return await self._registry.fetch(request)
        except Unauthorized as refused:
            raise Denied(self._not_given(port), upstream_status=refused.upstream_status) from refused


@implementer(IRegistry)
class AnonymousOnly(_LoginFilter):
    """A registry on the mirror's own host.

    :param name: the registry's name, for messages.
    :param host: the registry's virtual host, which accepts logins.
    """

    def __init__(self, registry: IRegistry, name: str, host: str) -> None:
        super().__init__(
            registry,
            lambda port: f"this host takes no logins: log in to {host}{port}",
            lambda port: (
                f"{name} does not give this to everybody, or has no such image; private images:"
                f" docker login {host}{port}"
            ),
        )


@implementer(IUpstream)
class ServiceAccountOnly(_LoginFilter):
    """A registry at which the mirror has an account that all its clients share.

    :param name: the registry's name, for messages.
    """

    def __init__(self, registry: IRegistry, name: str) -> None:
        super().__init__(
            registry,
            lambda _: f"this host takes no logins: the mirror uses its own account at {name} for all clients",
            lambda _: f"{name} does not give this to this mirror, or has no such image",
        )

    async def fetch(self, request: RegistryRequest) -> Answer:
        """Mark answers private, so that no cache in front serves them to strangers."""
        answer = await super().fetch(request)
        if isinstance(request.target, Ping):
            return answer
        cache = evolve(answer.cache, immutable=False) if answer.cache else None
        fields = [pair for pair in answer.headers if pair[0].lower() != "cache-control"]
        is_stored_nowhere = ("Cache-Control", "no-store") in answer.headers
        fields.append(("Cache-Control", "no-store" if is_stored_nowhere else "private"))
        return evolve(answer, headers=tuple(fields), cache=cache)

    async def token(self, request: TokenRequest) -> Answer:
        """:raises Denied: always; no challenge sends clients here."""
        raise Denied(self._no_logins(""))
