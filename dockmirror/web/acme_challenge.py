"""What an authority of certificates asks of a host that wants one: HTTP-01 (RFC 8555, 8.3)."""

from __future__ import annotations

from collections.abc import Callable

from twisted.web.resource import IResource, Resource

from ..http.server_request import ServerRequest
from .filter import RequestFilter

_PATH = b"/.well-known/acme-challenge/"


class AcmeChallengeRoute(RequestFilter):
    """Answers for known tokens on every host and to everybody, and leaves the rest to another resource.

    Authorities say from where they ask to nobody, so that no rule of access can come before it.

    :param proof: what belongs to a token; None for one that is not known.
    """

    def __init__(self, resource: IResource, proof: Callable[[str], bytes | None]) -> None:
        super().__init__(resource)
        self._proof = proof

    def check(self, request: ServerRequest) -> IResource | None:
        """The proof, or what lies behind."""
        if not request.path.startswith(_PATH):
            return None
        proof = self._proof(request.path.removeprefix(_PATH).decode("ascii", "replace"))
        return None if proof is None else IResource(KeyAuthorization(proof))


class KeyAuthorization(Resource):
    """Says it."""

    isLeaf = True

    def __init__(self, proof: bytes) -> None:
        super().__init__()
        self._proof = proof

    def render_GET(self, request: ServerRequest) -> bytes:
        """As it is."""
        request.setHeader("Content-Type", "application/octet-stream")
        return self._proof
