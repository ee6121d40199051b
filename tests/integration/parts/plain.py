"""The plainest client of a registry: it pushes images, and fetches single things to be compared."""

from __future__ import annotations

import http.client
import json
import re
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from .accounts import Account
from .images import Image
from .media import DOCKER, OCI, Content

_PATIENCE = 120
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')
ACCEPT = ", ".join([OCI.index, OCI.manifest, DOCKER.index, DOCKER.manifest, "*/*"])
Body = bytes | Iterable[bytes] | None
"""The body of a request; one without a length is sent in chunks."""


@dataclass(frozen=True)
class Response:
    """A whole response."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


@dataclass(frozen=True)
class PlainClient:
    """Speaks to the registry at *url*, as *account*, and follows no redirect.

    *host* is the name by which it asks, where that is not the URL's.
    """

    url: str
    account: Account | None = None
    host: str | None = None
    authority: Path | None = None

    def request(
        self, method: str, path: str, body: Body = None, headers: dict[str, str] | None = None
    ) -> Response:
        """One request, and another with what the challenge asks for when it is answered with 401.

        Where the token service refuses, its answer is returned.
        """
        asked = {"Accept": ACCEPT, **(headers or {})}
        if self.host:
            asked["Host"] = self.host
        response = self.bare(method, path, body, asked)
        if response.status != 401:
            return response
        answered = self._answer(response)
        if isinstance(answered, Response):
            return answered
        return self.bare(method, path, body, {**asked, **answered})

    def bare(self, method: str, path: str, body: Body, headers: dict[str, str]) -> Response:
        """One request as it stands."""
        connection = self._connection()
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return Response(response.status, response.headers, response.read())
        finally:
            connection.close()

    def manifest(self, repository: str, reference: str) -> Response:
        """The manifest of a tag or digest."""
        return self.request("GET", f"/v2/{repository}/manifests/{reference}")

    def blob(self, repository: str, digest: str, headers: dict[str, str] | None = None) -> Response:
        """A blob, or the redirect to it."""
        return self.request("GET", f"/v2/{repository}/blobs/{digest}", headers=headers)

    def push(self, repository: str, image: Image, *tags: str) -> None:
        """Upload all that *image* consists of, blobs and children first."""
        self._push(repository, image, tags, self.admitted(repository))

    def admitted(self, repository: str) -> dict[str, str]:
        """The headers with which it is let push to a repository."""
        return self.let("POST", f"/v2/{repository}/blobs/uploads/")

    def let(self, method: str, path: str) -> dict[str, str]:
        """The headers with which it is let do that, as often as it likes."""
        named = {"Host": self.host} if self.host else {}
        refused = self.bare(method, path, b"", named)
        answered = self._answer(refused) if refused.status == 401 else {}
        assert not isinstance(answered, Response), answered
        return {**named, **answered}

    def _push(
        self, repository: str, image: Image, tags: tuple[str, ...], authorization: dict[str, str]
    ) -> None:
        for child in image.children:
            self._push(repository, child, (), authorization)
        for blob in image.blobs:
            self._upload(repository, blob, authorization)
        for reference in (image.digest, *tags):
            path = f"/v2/{repository}/manifests/{reference}"
            headers = {**authorization, "Content-Type": image.manifest.media_type}
            self._expect(201, self.bare("PUT", path, image.manifest.data, headers))

    def _upload(self, repository: str, blob: Content, authorization: dict[str, str]) -> None:
        uploads = f"/v2/{repository}/blobs/uploads/"
        begun = self._expect(202, self.bare("POST", uploads, b"", authorization))
        location = urlsplit(begun.headers["Location"])
        path = f"{location.path}?{location.query}&{urlencode({'digest': blob.digest})}"
        headers = {**authorization, "Content-Type": "application/octet-stream"}
        self._expect(201, self.bare("PUT", path, blob.data, headers))

    def _expect(self, status: int, response: Response) -> Response:
        assert response.status == status, (self.url, response)
        return response

    def _answer(self, refused: Response) -> dict[str, str] | Response:
        """The header that a challenge asks for, or the token service's refusal to give it."""
        challenge = refused.headers.get("WWW-Authenticate", "")
        if challenge.lower().startswith("bearer"):
            token = self._token(challenge)
            if token.status != 200:
                return token
            return {"Authorization": f"Bearer {json.loads(token.body)['token']}"}
        return {"Authorization": self.account.basic} if self.account else {}

    def _token(self, challenge: str) -> Response:
        asked = dict(_PARAMETER.findall(challenge))
        realm = urlsplit(asked["realm"])
        more = urlencode({name: asked[name] for name in ("service", "scope") if name in asked})
        basic = {"Authorization": self.account.basic} if self.account else {}
        query = "&".join(filter(None, (realm.query, more)))
        if realm.netloc == self.host:
            return self.bare("GET", f"{realm.path}?{query}", None, {**basic, "Host": realm.netloc})
        service = PlainClient(f"{realm.scheme}://{realm.netloc}")
        return service.bare("GET", f"{realm.path}?{query}", None, basic)

    def _connection(self) -> http.client.HTTPConnection:
        url = urlsplit(self.url)
        assert url.hostname
        if url.scheme == "http":
            return http.client.HTTPConnection(url.hostname, url.port, timeout=_PATIENCE)
        context = _trusting(self.authority)
        return http.client.HTTPSConnection(url.hostname, url.port, timeout=_PATIENCE, context=context)


@cache
def _trusting(authority: Path | None) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=authority)
