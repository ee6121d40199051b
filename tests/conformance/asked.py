"""A registry as a client of the specification asks it, and what it has answered."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from tests.integration.parts.images import Image
from tests.integration.parts.media import Content, sha256
from tests.integration.parts.plain import PlainClient, Response

TOLD = (
    "Location", "Range", "Docker-Upload-UUID", "Docker-Content-Digest", "OCI-Chunk-Min-Length", "OCI-Subject",
    "OCI-Filters-Applied", "Link", "Content-Range",
)  # fmt: skip
"""The header fields by which the specification tells clients something."""
OTHERWISE_TOLD = ("Location", "Range", "Content-Range")
"""The headers that matter in partial content and in a refusal."""
_KIND = re.compile("/(blobs/uploads|blobs|manifests|tags|referrers)/")
OCTETS = {"Content-Type": "application/octet-stream"}


@dataclass(frozen=True)
class Answered:
    """The parts of a response that matter to clients, without the registry's own names."""

    request: str
    status: int
    code: str | None
    told: frozenset[str]

    def is_kept_by(self, other: Answered) -> bool:
        """Return True if the other says the same, and nothing less."""
        return (
            (self.request, self.status) == (other.request, other.status)
            and self.code in (None, other.code)
            and self.told <= other.told
        )


class Asked:
    """A registry with one repository for each case.

    :ivar netloc: host and port by which it is asked.
    :ivar answers: all that it has said so far.
    """

    def __init__(self, client: PlainClient, repository: str) -> None:
        self.netloc = client.host or urlsplit(client.url).netloc
        self.repository = repository
        self.answers: list[Answered] = []
        self._client = client

    def beside(self, name: str) -> Asked:
        """The same registry with another repository, whose responses are not recorded."""
        return Asked(self._client, f"{self.repository}-{name}")

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Response:
        """Make one request and record its response.

        :param path: below the repository, or an absolute path.
        """
        target = path if path.startswith("/") else f"/v2/{self.repository}/{path}"
        response = self._client.request(method, target, body, headers)
        names = TOLD if response.status < 206 else OTHERWISE_TOLD
        told = frozenset(name for name in names if name in response.headers)
        kind = _KIND.search(target)
        what = f"{method} {kind[1] if kind else target}"
        self.answers.append(Answered(what, response.status, code(response), told))
        return response

    def is_cut_off(self, location: str, data: bytes, begin: int, announced: int) -> None:
        """Begins to send a chunk, and goes away in the middle."""
        url = urlsplit(self._client.url)
        connection = http.client.HTTPConnection(url.hostname or "", url.port)
        connection.putrequest("PATCH", location, skip_host=True)
        fields = {
            "Host": self.netloc,
            "Content-Length": str(announced),
            "Content-Range": f"{begin}-{begin + announced - 1}",
            **OCTETS,
        }
        for name, value in fields.items():
            connection.putheader(name, value)
        connection.endheaders(data)
        connection.close()

    def location(self, response: Response) -> str:
        """The path that a response leads to, on the same host."""
        url = urlsplit(urljoin(f"http://{self.netloc}/", response.headers["Location"]))
        assert url.netloc == self.netloc, response.headers["Location"]
        return f"{url.path}?{url.query}" if url.query else url.path

    def begin(self) -> str:
        """The location of a new upload."""
        begun = self.ask("POST", "blobs/uploads/", b"")
        assert begun.status == 202
        return self.location(begun)

    def upload(self, data: bytes) -> str:
        """Pushes a blob in the plainest way; returns its digest."""
        digest = sha256(data)
        put = self.ask("PUT", with_digest(self.begin(), digest), data, OCTETS)
        assert put.status == 201, put
        return digest

    def put(self, manifest: Content, reference: str) -> Response:
        """Pushes a manifest alone."""
        headers = {"Content-Type": manifest.media_type}
        return self.ask("PUT", f"manifests/{reference}", manifest.data, headers)

    def push(self, image: Image, *tags: str) -> None:
        """Pushes all of an image."""
        for child in image.children:
            self.push(child)
        for blob in image.blobs:
            self.upload(blob.data)
        for reference in tags or (image.digest,):
            put = self.put(image.manifest, reference)
            assert put.status == 201, put

    def bytes(self, seed: str, size: int = 3000) -> bytes:
        """Bytes that no other repository has."""
        whole = f"{self.repository} {seed} ".encode()
        return (whole * (size // len(whole) + 1))[:size]

    def seed(self, name: str) -> str:
        """A seed for images that no other repository has."""
        return f"{self.repository} {name}"


def with_digest(location: str, digest: str) -> str:
    """The location to which an upload is completed."""
    return f"{location}{'&' if '?' in location else '?'}digest={digest}"


def code(response: Response) -> str | None:
    """The first error's code; None where there is no error in the specification's format."""
    if response.status < 400:
        return None
    try:
        found: str = json.loads(response.body)["errors"][0]["code"]
    except (ValueError, KeyError, IndexError, TypeError):
        return None
    return found
