"""A private image that the mirror holds, asked for by whoever may not have it, in every way there is."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from threading import Thread
from typing import Any
from urllib.parse import urlencode

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from tests.integration.conftest import MakeDirectory, MakeMachine
from tests.integration.parts.accounts import ALICE, BOB, Account
from tests.integration.parts.authority import Authority
from tests.integration.parts.chain import Chain, new_chain
from tests.integration.parts.images import Image, artifact, image
from tests.integration.parts.kept import growing_file, length
from tests.integration.parts.plain import PlainClient, Response
from tests.integration.parts.process import free_port, wait_until
from tests.integration.parts.registry import Registry, token_registry
from tests.integration.parts.tokens import ISSUER, SERVICE, Tokens

from .rows import Record, hardship

pytestmark = pytest.mark.integration

ASKING_AT_ONCE = 8
REPOSITORY, OTHER = "private/secret", "team/other"
WRONG_KEY = "a key of somebody else's, of 32 bytes or more"


@dataclass(frozen=True)
class World:
    """A mirror of two registries, each with a private image that Alice has pulled, and so it is held."""

    chain: Chain
    twin: Tokens
    image: Image
    large: Image
    operations: int

    def client(self, host: str = "docker") -> PlainClient:
        """Somebody."""
        return self.chain.mirror.client(host)


@pytest.fixture(scope="module")
def world(directory: MakeDirectory, make_machine: MakeMachine, authority: Authority) -> Iterator[World]:
    """A mirror, and a private image that Alice has pulled."""
    secret, large, operations = (
        image("of Alice alone"),
        artifact("large, of Alice", size=4_000_000),
        free_port(),
    )
    own: dict[str, Any] = {
        "operations": f"tcp:{operations}:interface=127.0.0.1",
        "export": True,
        "tag_ttl": 0,
    }
    with ExitStack() as stack:
        tokens = stack.enter_context(Tokens(authority, "127.0.0.5"))
        registry = stack.enter_context(token_registry(directory("twin"), authority, tokens))
        chain = stack.enter_context(
            new_chain(
                directory("chain"), make_machine(), authority, {"timeout": 3, "connect_timeout": 3}, **own
            )
        )
        upstreams: Any = chain.mirror._settings["upstreams"]
        twin = {**upstreams["docker"], "url": registry.url, "realms": [tokens.url], "aliases": ["twin.test"]}
        chain.mirror.configure(upstreams={**upstreams, "twin": twin})
        chain.mirror.stop()
        chain.mirror.start()
        for at, host in ((chain.registry, "docker"), (registry, "twin")):
            _pulled(at, chain, host, secret)
        chain.registry.push(REPOSITORY, large, "large")
        yield World(chain, tokens, secret, large, operations)


def _pulled(at: Registry, chain: Chain, host: str, secret: Image) -> None:
    at.push(REPOSITORY, secret, "latest")
    at.push(OTHER, artifact("of a team"), "latest")
    alice = chain.mirror.client(host, ALICE)
    assert alice.manifest(REPOSITORY, "latest").body == secret.manifest.data
    assert alice.manifest(REPOSITORY, secret.digest).body == secret.manifest.data
    for blob in secret.blobs:
        assert alice.blob(REPOSITORY, blob.digest).body == blob.data
    for path in (f"/v2/{REPOSITORY}/tags/list", f"/v2/{REPOSITORY}/referrers/{secret.digest}"):
        alice.request("GET", path)


Ask = tuple[str, str, str, dict[str, str]]
"""Host, method, path and headers."""
ROUTES: dict[str, Callable[[Image], Ask]] = {
    "manifest by tag": lambda it: ("docker", "GET", f"/v2/{REPOSITORY}/manifests/latest", {}),
    "manifest by digest": lambda it: ("docker", "GET", f"/v2/{REPOSITORY}/manifests/{it.digest}", {}),
    "manifest by HEAD": lambda it: ("docker", "HEAD", f"/v2/{REPOSITORY}/manifests/latest", {}),
    "manifest that is known": lambda it: (
        "docker", "GET", f"/v2/{REPOSITORY}/manifests/latest", {"If-None-Match": f'"{it.digest}"'}
    ),
    "manifest by escapes": lambda it: ("docker", "GET", "/v2/%70rivate/secret/manifests/%6catest", {}),
    "blob": lambda it: ("docker", "GET", f"/v2/{REPOSITORY}/blobs/{it.layers[0].digest}", {}),
    "blob by HEAD": lambda it: ("docker", "HEAD", f"/v2/{REPOSITORY}/blobs/{it.layers[0].digest}", {}),
    "blob by range": lambda it: (
        "docker", "GET", f"/v2/{REPOSITORY}/blobs/{it.layers[0].digest}", {"Range": "bytes=0-99"}
    ),
    "blob that is known": lambda it: (
        "docker", "GET", f"/v2/{REPOSITORY}/blobs/{it.layers[0].digest}",
        {"If-None-Match": f'"{it.layers[0].digest}"'},
    ),
    "configuration": lambda it: ("docker", "GET", f"/v2/{REPOSITORY}/blobs/{it.blobs[0].digest}", {}),
    "blob by another's path": lambda it: ("docker", "GET", f"/v2/{OTHER}/blobs/{it.layers[0].digest}", {}),
    "blob by a public path": lambda it: ("docker", "GET", f"/v2/library/a/blobs/{it.layers[0].digest}", {}),
    "manifest by a public path": lambda it: ("docker", "GET", f"/v2/library/a/manifests/{it.digest}", {}),
    "tags": lambda it: ("docker", "GET", f"/v2/{REPOSITORY}/tags/list", {}),
    "referrers": lambda it: ("docker", "GET", f"/v2/{REPOSITORY}/referrers/{it.digest}", {}),
    "ns": lambda it: ("docker", "GET", f"/v2/{REPOSITORY}/manifests/latest?ns=docker.io", {}),
    "own host by prefix": lambda it: ("", "GET", f"/v2/docker.io/{REPOSITORY}/manifests/latest", {}),
    "own host by default": lambda it: ("", "GET", f"/v2/{REPOSITORY}/manifests/latest", {}),
    "own host by ns": lambda it: ("", "GET", f"/v2/{REPOSITORY}/blobs/{it.digest}?ns=docker.io", {}),
    "own host, the twin's": lambda it: ("", "GET", f"/v2/{REPOSITORY}/manifests/latest?ns=twin.test", {}),
    "own host below a name": lambda it: ("", "GET", f"/docker.io/v2/{REPOSITORY}/manifests/{it.digest}", {}),
    "own host, tags": lambda it: ("", "GET", f"/v2/docker.io/{REPOSITORY}/tags/list", {}),
    "archive": lambda it: ("", "GET", f"/export?image=docker.io/{REPOSITORY}:latest", {}),
    "archive by digest": lambda it: ("", "GET", f"/export?image=docker.io/{REPOSITORY}@{it.digest}", {}),
    "archive by HEAD": lambda it: ("", "HEAD", f"/export?image=docker.io/{REPOSITORY}:latest", {}),
    "archive, a part": lambda it: (
        "", "GET", f"/export?image=docker.io/{REPOSITORY}:latest", {"Range": "bytes=0-99"}
    ),
    "the twin's": lambda it: ("twin", "GET", f"/v2/{REPOSITORY}/manifests/latest", {}),
    "the twin's blob": lambda it: ("twin", "GET", f"/v2/{REPOSITORY}/blobs/{it.layers[0].digest}", {}),
}  # fmt: skip


def _token(world: World, account: Account | None, repository: str, host: str = "docker") -> str:
    """A token of the mirror's own token service."""
    query = urlencode({"scope": f"repository:{repository}:pull", "service": "a"})
    login = {"Authorization": account.basic} if account else {}
    given = world.client(host).bare(
        "GET", f"/v2/auth?{query}", None, {"Host": world.chain.mirror.host(host), **login}
    )
    return f"Bearer {json.loads(given.body)['token']}"


def _made(key: str | bytes | RSAPrivateKey, algorithm: str, life: int = 300, **headers: Any) -> str:
    now = int(time.time())
    access = [{"type": "repository", "name": REPOSITORY, "actions": ["pull"]}]
    claims = {
        "iss": ISSUER,
        "aud": SERVICE,
        "sub": "alice",
        "iat": now - 900,
        "nbf": now - 900,
        "exp": now + life,
    }
    return "Bearer " + jwt.encode({**claims, "access": access}, key, algorithm=algorithm, headers=headers)


CREDENTIALS: dict[str, Callable[[World], str | None]] = {
    "nobody": lambda _: None,
    "the token that stands for none": lambda _: "Bearer anonymous",
    "nobody's token": lambda world: _token(world, None, REPOSITORY),
    "Bob": lambda _: BOB.basic,
    "Bob's token for it": lambda world: _token(world, BOB, REPOSITORY),
    "Alice's token for another": lambda world: _token(world, ALICE, OTHER),
    "Alice with another password": lambda _: Account("alice", "wrong").basic,
    "a token of another key": lambda _: _made(WRONG_KEY, "HS256"),
    "a token without a signature": lambda _: _made("", "none"),
    "a token that has ended": lambda world: _made(
        world.chain.tokens._key, "RS256", -600, x5c=world.chain.tokens._chain
    ),
    "nonsense": lambda _: "Bearer nonsense",
}


@contextmanager
def _held(world: World) -> Iterator[Image]:
    yield world.image


@contextmanager
def _growing(world: World) -> Iterator[Image]:
    """Have Alice's download of the image stop in the middle."""
    blob, cache = world.large.layers[0].digest, world.chain.mirror.cache
    with world.chain.blobs.valve.shut(1_000_000):
        pulling = Thread(target=_pull, args=(world.chain.mirror.client("docker", ALICE), blob))
        pulling.start()
        wait_until(lambda: length(growing_file(cache, blob)) > 500_000, "it is downloaded")
        yield world.large
    pulling.join()


def _pull(client: PlainClient, blob: str) -> None:
    """Pull until the download goes on, or the client waits no longer."""
    with suppress(OSError):
        client.blob(REPOSITORY, blob)


@contextmanager
def _stale(world: World) -> Iterator[Image]:
    """The upstream does not answer."""
    with world.chain.front.stopped(), world.chain.tokens.stopped(), world.twin.stopped():
        yield world.image


STATES = {"held": _held, "growing": _growing, "stale": _stale}


def _told(port: int, path: str, headers: dict[str, str]) -> bytes:
    """The response to a client at another address than Alice."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30, source_address=("127.0.0.7", 0))
    with closing(connection):
        connection.request("GET", path, None, headers)
        return connection.getresponse().read().replace(path.encode(), b"")


@hardship("hostile: a private image, on pages and in figures")
def test_pages(world: World, came: Record) -> None:
    """No page and no metric names the image."""
    mirror = world.chain.mirror
    assert mirror.client("docker", ALICE).manifest(REPOSITORY, "latest").status == 200
    told = []
    for accept in ("text/html", "application/json", "text/plain", "*/*"):
        for host in (mirror.host(), mirror.host("docker"), f"evil.test:{mirror.port}"):
            for path in (
                "/",
                "/status",
                "/healthz",
                "/recent",
                "/v2/_catalog",
                f"/?image=docker.io/{REPOSITORY}",
            ):
                told.append((f"{host}{path}", _told(mirror.port, path, {"Host": host, "Accept": accept})))
    operations = PlainClient(f"http://127.0.0.1:{world.operations}")
    for path in ("/metrics", "/healthz", "/readyz"):
        told.append((path, operations.bare("GET", path, None, {}).body))
    secrets = [each.encode() for each in (REPOSITORY, *world.chain.secrets(), world.image.digest)]
    assert [(secret[:30], where) for where, body in told for secret in secrets if secret in body] == []
    came(f"not named, in {len(told)} answers")


STATE_ROWS = [pytest.param(name, marks=hardship(f"hostile: a private image, {name}")) for name in STATES]


@pytest.mark.parametrize("state", STATE_ROWS)
def test_private(world: World, state: str, came: Record) -> None:
    """Only Alice gets any of the image, or learns that it exists."""
    tried = {name: make(world) for name, make in CREDENTIALS.items()}
    allowed = _token(world, ALICE, REPOSITORY)
    assert _asked(world, ROUTES["blob"](world.image), allowed).status == 200
    with STATES[state](world) as secret, ThreadPoolExecutor(ASKING_AT_ONCE) as pool:
        requests = [(route, who, ROUTES[route](secret)) for route in ROUTES for who in tried]
        responses = pool.map(lambda each: _asked(world, each[2], tried[each[1]]), requests)
        leaks = [
            f"{route}, {who}: {response.status} {response.headers} {response.body[:200]!r}"
            for (route, who, ask), response in zip(requests, responses, strict=True)
            if response.status not in _refusals(state) or _shows(response, secret, ask[2])
        ]
        assert not leaks, "\n".join(leaks)
        if state != "growing":
            for route in ("manifest by digest", "blob", "blob by range", "blob by HEAD", "configuration"):
                assert _asked(world, ROUTES[route](secret), allowed).status in (200, 206), route
    assert world.chain.mirror.failures() == ""
    came(f"refused, {len(requests)} times: {len(ROUTES)} ways, {len(tried)} who ask")


def _refusals(state: str) -> set[int]:
    return {401, 403, 404} | ({502, 503, 504} if state == "stale" else set())


def _asked(world: World, ask: Ask, authorization: str | None) -> Response:
    host, method, path, headers = ask
    named = {"Host": world.chain.mirror.host(host), **headers}
    if authorization is not None:
        named["Authorization"] = authorization
    return world.client(host).bare(method, path, None, named)


def _shows(response: Response, secret: Image, path: str) -> bool:
    """Return True if the response has anything of the image that the request did not have."""
    told = str(response.headers).lower()
    pieces = [secret.manifest.data[:60], *(blob.data[:60] for blob in secret.blobs if len(blob.data) > 60)]
    named = [each.digest.encode() for each in (secret.manifest, *secret.blobs) if each.digest not in path]
    return (
        any(piece in response.body for piece in (*pieces, *named))
        or "docker-content-digest" in told
        or "hit" in response.headers.get("Cache-Status", "")
    )
