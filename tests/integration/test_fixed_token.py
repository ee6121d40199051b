"""Requests of clients that hard-code ghcr.io, as their sources make them: Homebrew and trivy."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from http.client import HTTPResponse
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from .conftest import MakeChain
from .parts.clients import curl
from .parts.front import Front
from .parts.images import EMPTY, Image, image, index
from .parts.machine import Machine
from .parts.media import OCI, Content
from .parts.mirror import Mirror
from .parts.plain import Response
from .parts.registry import Registry
from .parts.tokens import Tokens
from .pulls import succeeded

pytestmark = pytest.mark.integration

BREW = (
    "--disable", "--cookie", "/dev/null", "--globoff", "--user-agent",
    "Homebrew/4.4.0 (Linux; x86_64 Debian GNU/Linux 12 (bookworm)) curl/7.88.1",
    "--header", "Accept-Language: en", "--fail", "--retry", "3", "--remote-time", "--location",
)  # fmt: skip
"""Options that ``curl_args`` and ``curl_download`` give to curl.

Source: Library/Homebrew/utils/curl.rb of https://github.com/Homebrew/brew at bb81ca8e.
"""
AGENT = "go-containerregistry/v0.20.2"
MANIFESTS = (
    "application/vnd.docker.distribution.manifest.v1+json,"
    "application/vnd.docker.distribution.manifest.v1+prettyjws,"
    "application/vnd.docker.distribution.manifest.v2+json,"
    "application/vnd.oci.image.manifest.v1+json,"
    "application/vnd.docker.distribution.manifest.list.v2+json,"
    "application/vnd.oci.image.index.v1+json"
)
DATABASE = "application/vnd.aquasec.trivy.db.layer.v1.tar+gzip"
REPOSITORY = "public/aquasecurity/trivy-db"
"""The token service of the tests lets everybody pull what is public."""


@pytest.fixture(scope="module")
def mirror(
    chains: MakeChain, open_registry: Registry, front: Front, tokens: Tokens, database: Image
) -> Iterator[Mirror]:
    """A mirror of two registries that stand for ghcr.io: one asks for nothing, the other for tokens."""
    guarded = {"url": front.url, "realms": [tokens.url], "registry": "ghcr.test"}
    with chains(others={"open": {"url": open_registry.url, "registry": "ghcr.io"}, "ghcr": guarded}) as chain:
        yield chain.mirror


@pytest.fixture(scope="module")
def database(token_registry: Registry) -> Image:
    """A database as trivy publishes its own, with the tag of its schema.

    Sources: README.md of https://github.com/aquasecurity/trivy-db at 8c398f13, "Building the DB", for the
    types; ``dbMediaType`` in pkg/db/db.go and ``titleAnnotation`` in pkg/oci/artifact.go of trivy.
    """
    packed = image("trivy.db").layers[0].data
    layer, config = Content(DATABASE, packed), Content(EMPTY, b"{}")
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI.manifest,
        "artifactType": "application/vnd.aquasec.trivy.config.v1+json",
        "config": config.descriptor(),
        "layers": [layer.descriptor(annotations={"org.opencontainers.image.title": "db.tar.gz"})],
    }
    published = Image(Content(OCI.manifest, json.dumps(manifest).encode()), config, (layer,))
    token_registry.push(REPOSITORY, published, "2")
    return published


@pytest.mark.parametrize(("token", "version"), [(None, "1.7.1"), ("QQ==", "1.7.1-1")])
def test_a_bottle(
    mirror: Mirror, open_registry: Registry, skopeo_machine: Machine, token: str | None, version: str
) -> None:
    """Addresses that HOMEBREW_ARTIFACT_DOMAIN makes give a bottle and its index, whatever the token.

    Source: ``github_packages_manifest_resource`` in Library/Homebrew/bottle.rb, and
    ``CurlGitHubPackagesDownloadStrategy``, of https://github.com/Homebrew/brew.
    """
    pushed = index(f"bottle {token}")
    open_registry.push("homebrew/core/jq", pushed, version)
    layer = pushed.children[0].layers[0]
    for header, path, expected in (
        (["--header", f"Accept: {OCI.index}"], f"manifests/{version}", pushed.manifest.data),
        ([], f"blobs/{layer.digest}", layer.data),
    ):
        original = f"https://ghcr.io/v2/homebrew/core/jq/{path}"
        url = original.replace("https://ghcr.io/", f"http://{mirror.host()}/ghcr.io/")
        target = skopeo_machine.home / "download"
        fixed = [] if token is None else ["--header", f"Authorization: Bearer {token}"]
        succeeded(curl(skopeo_machine, *BREW, "--output", str(target), *header, *fixed, url))
        assert target.read_bytes() == expected


@pytest.mark.parametrize(("host", "prefix"), [("ghcr", ""), ("", "ghcr.test/")])
def test_a_database(mirror: Mirror, database: Image, host: str, prefix: str) -> None:
    """trivy gets its database by a virtual host, with an anonymous token, and by the mirror's own host.

    Sources: ``Download`` in pkg/oci/artifact.go of https://github.com/aquasecurity/trivy at 0313276d, which
    asks by pkg/v1/remote of https://github.com/google/go-containerregistry: ``fetchManifest`` and
    ``fetchBlobURL`` in fetcher.go at 1bcb8fe9, ``ping`` in transport/ping.go, ``refreshBasic`` in
    transport/bearer.go at 04890d8e.
    """
    trivy = Trivy(mirror, mirror.host(host), f"{prefix}{REPOSITORY}")
    assert trivy.ping() is (host != "")
    manifest = trivy.get(f"/v2/{trivy.repository}/manifests/2", {"Accept": MANIFESTS})
    assert (manifest.status, manifest.body) == (200, database.manifest.data)
    assert manifest.headers["Content-Type"] == OCI.manifest
    [described] = json.loads(manifest.body)["layers"]
    assert described["mediaType"] == DATABASE
    blob = trivy.get(f"/v2/{trivy.repository}/blobs/{described['digest']}")
    assert (blob.status, blob.body) == (200, database.layers[0].data)
    assert blob.headers["Content-Length"] == str(described["size"])


class Trivy:
    """Writes the bytes that Go writes for trivy's requests, each by a connection of its own."""

    def __init__(self, mirror: Mirror, host: str, repository: str) -> None:
        self.repository = repository
        self._port = mirror.port
        self._host = host
        self._authorization: dict[str, str] = {}

    def ping(self) -> bool:
        """Ask for the challenge, and for the anonymous token if there is one; return True if there is."""
        response = self.get("/v2/")
        if response.status == 200:
            return False
        assert response.status == 401
        challenge = dict(re.findall(r'(\w+)="([^"]*)"', response.headers["WWW-Authenticate"]))
        realm = urlsplit(challenge["realm"])
        assert realm.netloc == self._host  # else trivy refuses it: validateRealmURL in transport/bearer.go
        scope = f"repository:{self.repository}:pull"
        query = {**dict(parse_qsl(realm.query)), "scope": scope, "service": challenge["service"]}
        granted = self.get(f"{realm.path}?{urlencode(sorted(query.items()))}")
        assert granted.status == 200
        self._authorization = {"Authorization": f"Bearer {json.loads(granted.body)['token']}"}
        return True

    def get(self, path: str, headers: dict[str, str] | None = None) -> Response:
        """Return the response of a GET; Go sorts the headers after the first two."""
        lines = {
            "Host": self._host,
            "User-Agent": AGENT,
            **dict(sorted({**(headers or {}), **self._authorization}.items())),
            "Accept-Encoding": "gzip",
            "Connection": "close",
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        with socket.create_connection(("127.0.0.1", self._port), 120) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode())
            response = HTTPResponse(connection)
            response.begin()
            return Response(response.status, response.headers, response.read())
