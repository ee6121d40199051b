"""A client of a registry in a page: it asks as docker does, and believes nothing that it can check."""

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
    """A whole response."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    def errors(self) -> str:
        """The codes and messages of a registry's error."""
        return "; ".join(f"{e['code']}: {e['message']}" for e in json.loads(self.body)["errors"])


@frozen
class Client:
    """Asks one host at one port of the loopback interface: names need not resolve.

    :ivar host: the host's name with its port, as it stands in an image's name.
    """

    host: str
    port: int

    def ask(self, path: str, token: str | None = None) -> Response:
        """One GET."""
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
    """Where a 401 sends for a token that allows this: the path on the realm's host."""
    asked = dict(_PARAMETER.findall(response.headers["WWW-Authenticate"]))
    query = urlencode({"service": asked["service"], "scope": scope})
    return f"{urlsplit(asked['realm']).path}?{query}"
