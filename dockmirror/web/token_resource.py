"""``/v2/auth``: the token service that every challenge of ours names."""

from __future__ import annotations

from twisted.web.resource import Resource

from ..headers import first
from ..http.server_request import ServerRequest
from ..interfaces import Answer, IRegistry
from ..oci.errors import RegistryError, Unsupported
from ..oci.token import TokenRequest
from .query import Parameters, credentials, parameters, parse_parameters
from .respond import respond

FORM_LIMIT = 64 * 1024
"""Bytes of a form; it holds a name, a password or a refresh token, and scopes."""


class TokenResource(Resource):
    """Takes requests by GET and, as forms, by POST."""

    isLeaf = True

    def __init__(self, registry: IRegistry) -> None:
        super().__init__()
        self._registry = registry

    def render(self, request: ServerRequest) -> int:
        """Answers when the token service has."""
        return respond(request, self._token(request))

    async def _token(self, request: ServerRequest) -> Answer:
        if not request.is_token:  # by another spelling, which whoever looks at paths would not know
            raise Unsupported("the token service is at /v2/auth", status=404)
        if request.method not in (b"GET", b"POST", b"HEAD"):
            raise Unsupported("a token is asked for by GET or by POST")
        form = request.method == b"POST"
        pairs = parameters(request) + (_form(request) if form else ())
        return await self._registry.token(TokenRequest.parse(pairs, form, credentials(request)))


def is_form(request: ServerRequest) -> bool:
    """Whether the body of this request is wanted: only a token service's form is."""
    return request.method == b"POST" and request.is_token


def _form(request: ServerRequest) -> Parameters:
    kind = first(request.requestHeaders, "Content-Type") or ""
    if kind.partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise RegistryError("expected a form: application/x-www-form-urlencoded", status=400)
    return parse_parameters(request.content.read() if request.content else b"")
