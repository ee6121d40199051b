"""A small registry client that sends docker's requests and verifies what it receives."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Mapping
from urllib.parse import urlencode, urlsplit

from attrs import field, frozen

_PARAMETER = re.compile(r'(\w+)="([^"]*)"')


@frozen
class Response:
    """A complete response."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    def errors(self) -> str:
        """Return the codes and messages of a registry's error."""
        return "; ".join(f"{e['code']}: {e['message']}" for e in json.loads(self.body)["errors"])


@frozen
class Client:
    """Sends requests for one host to a port of the loopback interface, without name resolution.

    :ivar host: the host's name with its port, as it stands in an image's name.
    """

    host: str
    port: int

    def ask(self, path: str, token: str | None = None) -> Response:
        """Send a GET request."""
        headers = {"Host": self.host, "Accept": "application/vnd.oci.image.manifest.v1+json, */*"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            return Response(response.status, dict(response.headers.items()), response.read())
        finally:
            connection.close()


def token_path(response: Response, scope: str) -> str:
    """Return the path on the token service to which a 401 response refers, for this scope."""
    asked = dict(_PARAMETER.findall(response.headers["WWW-Authenticate"]))
    query = urlencode({"service": asked["service"], "scope": scope})
    return f"{urlsplit(asked['realm']).path}?{query}"
