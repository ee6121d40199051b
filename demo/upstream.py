"""A registry that requires tokens, its token service, and the host of its blobs."""

from __future__ import annotations

import json
import secrets
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Empty, SimpleQueue
from urllib.parse import parse_qs, urlsplit

from attrs import field, frozen

from .image import MANIFEST, Image, digest_of

REPOSITORY = "library/hello"
SCOPE = f"repository:{REPOSITORY}:pull"
SERVICE = "registry of the demonstration"
_JSON = "application/json"


@frozen
class Asked:
    """One request to a server: its address, the request, and the status of the response."""

    url: str
    request: str
    authorization: str | None
    status: int


@frozen
class _Response:
    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


@frozen
class Upstream:
    """The three servers, and the requests since the last look at them."""

    image: Image
    url: str = ""
    tokens_url: str = ""
    blobs_url: str = ""
    gone: threading.Event = field(factory=threading.Event)
    _tokens: set[str] = field(factory=set)
    _asked: SimpleQueue[Asked] = field(factory=SimpleQueue)

    def asked(self) -> Iterator[Asked]:
        """Return the requests since the last call, in order."""
        try:
            while True:
                yield self._asked.get_nowait()
        except Empty:
            return

    def record(self, asked: Asked) -> None:
        self._asked.put(asked)

    def registry(self, path: str, authorization: str | None) -> _Response:
        """Answer as the registry, which redirects to another host for blobs."""
        if (authorization or "").removeprefix("Bearer ") not in self._tokens:
            return self._unauthorized(path)
        name = path.removeprefix(f"/v2/{REPOSITORY}/")
        if path == "/v2/":
            return _Response(200, b"{}", (("Content-Type", _JSON),))
        if name.startswith("manifests/"):
            return self._manifest(name.partition("/")[2])
        if name.removeprefix("blobs/") in self.image.blobs:
            location = f"{self.blobs_url}/{name.removeprefix('blobs/')}?signature=0123456789"
            return _Response(307, headers=(("Location", location),))
        return _unknown("BLOB_UNKNOWN")

    def token(self, path: str, authorization: str | None) -> _Response:
        """Answer as the token service, with an anonymous token for the one repository."""
        if SCOPE not in parse_qs(urlsplit(path).query).get("scope", []):
            return _Response(403, _error("DENIED"), (("Content-Type", _JSON),))
        token = secrets.token_urlsafe(24)
        self._tokens.add(token)
        body = json.dumps({"token": token, "expires_in": 300}).encode()
        return _Response(200, body, (("Content-Type", _JSON),))

    def blob(self, path: str, authorization: str | None) -> _Response:
        """Answer with a blob; like some public blob stores, refuse a request with ``Authorization``."""
        if authorization is not None:
            return _Response(400, b"only one way to authenticate is allowed")
        data = self.image.blobs.get(urlsplit(path).path.removeprefix("/"))
        return _Response(404) if data is None else _Response(200, data)

    def _manifest(self, reference: str) -> _Response:
        digest = digest_of(self.image.manifest)
        if reference not in ("latest", digest):
            return _unknown("MANIFEST_UNKNOWN")
        headers = (("Content-Type", MANIFEST), ("Docker-Content-Digest", digest))
        return _Response(200, self.image.manifest, headers)

    def _unauthorized(self, path: str) -> _Response:
        scope = "" if path == "/v2/" else f',scope="{SCOPE}"'
        challenge = f'Bearer realm="{self.tokens_url}/token",service="{SERVICE}"{scope}'
        headers = (("Content-Type", _JSON), ("WWW-Authenticate", challenge))
        return _Response(401, _error("UNAUTHORIZED"), headers)


@contextmanager
def upstream(image: Image) -> Iterator[Upstream]:
    """Run the three servers, each on its own port."""
    with ExitStack() as stack:
        registry, tokens, blobs = (stack.enter_context(_Server()) for _ in range(3))
        it = Upstream(image, registry.url, tokens.url, blobs.url)
        for server, answer in ((registry, it.registry), (tokens, it.token), (blobs, it.blob)):
            server.answer, server.record, server.gone = answer, it.record, it.gone
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            stack.callback(server.shutdown)
        yield it


class _Exchange(BaseHTTPRequestHandler):
    """Records one request, then answers it."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        if self.server.gone.is_set():
            self.close_connection = True
            return
        authorization = self.headers.get("Authorization")
        response = self.server.answer(self.path, authorization)
        request = f"{self.command} {self.path}"
        self.server.record(Asked(self.server.url, request, authorization, response.status))
        self.send_response(response.status)
        for name, value in (*response.headers, ("Content-Length", str(len(response.body)))):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing: the demonstration prints the requests."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    answer: Callable[[str, str | None], _Response]
    record: Callable[[Asked], None]
    gone: threading.Event

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Exchange)
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore connections that the mirror drops."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def _error(code: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": code.lower(), "detail": None}]}).encode()


def _unknown(code: str) -> _Response:
    return _Response(404, _error(code), (("Content-Type", _JSON),))
