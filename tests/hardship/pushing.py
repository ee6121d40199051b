"""One image pushed through a mirror whose upstream is meddled with."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from tests.integration.parts.accounts import PUBLISHER
from tests.integration.parts.chain import Chain
from tests.integration.parts.images import Image
from tests.integration.parts.media import Content
from tests.integration.parts.plain import Body, PlainClient, Response
from tests.integration.parts.server import Exchange

TAKEN, CUT_OFF = "taken", "cut off"
_OCTETS = {"Content-Type": "application/octet-stream"}
_SENDS_AGAIN = 307
_PIECE = 100_000


class _Pieces:
    """Data that can be sent again, and has no length for whoever sends it."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __iter__(self) -> Iterator[bytes]:
        return (self._data[begin : begin + _PIECE] for begin in range(0, len(self._data), _PIECE))


class Refused(Exception):
    """An error that ends a client's push."""


@dataclass(frozen=True)
class Push:
    """An image that the upstream does not have.

    :ivar chunked: whether the client does not say how long its bodies are.
    """

    chain: Chain
    image: Image
    repository: str
    chunked: bool = False

    @property
    def client(self) -> PlainClient:
        """Asks the mirror."""
        return self.chain.mirror.client("docker", PUBLISHER)

    def push(self) -> str:
        """Push the image; return TAKEN, the error, or CUT_OFF if there was no answer."""
        try:
            headers = self.client.admitted(self.repository)
            for blob in reversed(self.image.blobs):  # the large one first
                self._upload(blob, headers)
            kind = {"Content-Type": self.image.manifest.media_type}
            path = f"/v2/{self.repository}/manifests/latest"
            self._ask("PUT", path, self.image.manifest.data, {**headers, **kind})
        except Refused as refused:
            return str(refused)
        except (http.client.HTTPException, ConnectionError):
            return CUT_OFF
        return TAKEN

    def arrived(self) -> bool:
        """Return True if the registry itself has all of the image."""
        registry = self.chain.registry.plain
        tagged = registry.manifest(self.repository, "latest").body == self.image.manifest.data
        return tagged and all(
            registry.blob(self.repository, blob.digest).body == blob.data for blob in self.image.blobs
        )

    def _upload(self, blob: Content, headers: dict[str, str]) -> None:
        begun = self._ask("POST", f"/v2/{self.repository}/blobs/uploads/", b"", headers)
        body = _Pieces(blob.data) if self.chunked else blob.data
        patched = self._ask("PATCH", self._location(begun), body, {**headers, **_OCTETS})
        location = self._location(patched)
        digest = f"{'&' if '?' in location else '?'}digest={blob.digest}"
        self._ask("PUT", location + digest, b"", headers)

    def _location(self, response: Response) -> str:
        host = self.chain.mirror.host("docker")
        url = urlsplit(urljoin(f"http://{host}/", response.headers.get("Location", "")))
        assert url.netloc == host, "the client is to stay at the mirror"
        return f"{url.path}?{url.query}" if url.query else url.path

    def _ask(self, method: str, path: str, body: Body, headers: dict[str, str]) -> Response:
        """The answer, which is given to a body that is sent once more where that is asked for.

        :raises Refused: it is no consent.
        """
        response = self.client.bare(method, path, body, headers)
        if response.status == _SENDS_AGAIN:
            response = self.client.bare(method, self._location(response), body, headers)
        if response.status in (201, 202):
            return response
        assert response.headers["Content-Type"].startswith("application/json"), response
        code = json.loads(response.body)["errors"][0]["code"]
        pause = response.headers["Retry-After"]
        raise Refused(f"{response.status} {code}" + (f", Retry-After: {pause}" if pause else ""))


Answer = Callable[[Exchange], None]
Fault = Callable[[Push], AbstractContextManager[None]]


def at(method: str, answer: Answer, *, once: bool = False) -> Fault:
    """The registry answers so to requests of that method, or to the first of them."""

    @contextmanager
    def fault(push: Push) -> Iterator[None]:
        met, lock = 0, threading.Lock()

        def meddle(exchange: Exchange) -> bool:
            nonlocal met
            if exchange.command != method or f"/{push.repository}/" not in exchange.path:
                return False
            with lock:
                met += 1
                meddles = met == 1 or not once
            if meddles:
                answer(exchange)
            return meddles

        with push.chain.front.meddled_with(meddle):
            yield
        assert met, "the mirror has not met with it"

    return fault
