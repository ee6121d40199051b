"""A registry that the mirror asks as itself: whoever may use the mirror shares what it is given."""

from __future__ import annotations

from attrs import evolve
from zope.interface import implementer

from ..body.in_memory import json_body
from ..interfaces import Answer, IRegistry
from ..oci.errors import Denied, Unauthorized
from ..oci.request import Ping, RegistryRequest
from ..oci.token import TokenRequest


@implementer(IRegistry)
class ServiceAccountOnly:
    """Takes no client's credentials, and challenges nobody.

    :param name: the registry's, for messages.
    """

    def __init__(self, registry: IRegistry, name: str) -> None:
        self._registry = registry
        self._name = name

    async def fetch(self, request: RegistryRequest) -> Answer:
        """See ``IRegistry``; no cache in front may give it to those whom the mirror would not serve.

        :raises Denied: for a login, and for what the registry does not give to the mirror.
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
        return evolve(answer, headers=(*others, ("Cache-Control", "private")))

    async def token(self, request: TokenRequest) -> Answer:
        """:raises Denied: always; nobody was sent here."""
        raise self._no_logins()

    def _no_logins(self) -> Denied:
        return Denied(
            f"this host takes no logins: the mirror asks {self._name} as itself, for everybody who may use it"
        )
