"""``python -m demo``: pull an image through the mirror and print every request."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from urllib.parse import unquote

from attrs import frozen

from .client import Client, Response, token_path
from .image import digest_of, image
from .mirror import Mirror, mirror
from .upstream import SCOPE, Upstream, upstream

SIZE = 4 * 1024 * 1024


def main() -> None:
    """Run the demonstration; an assertion fails when a response is wrong."""
    with upstream(image(SIZE)) as registry, mirror(registry.url) as running:
        print(f"A registry that demands tokens listens at {registry.url}; it stands for Docker Hub.")
        print(f"The mirror in front of it listens at http://127.0.0.1:{running.port}.")
        shown = Shown(registry)
        pull_from_virtual_host(running, shown)
        pull_from_own_host(running, shown)
        pull_by_skopeo(running, shown)
        pull_without_upstream(running, shown)
        print_log(running)
    print("\nEvery byte was what its digest says.")


@frozen
class Shown:
    """Prints each request of the client, and the requests that the mirror sends for it."""

    upstream: Upstream

    def ask(self, client: Client, path: str, token: str | None = None) -> Response:
        """Send one request and print it."""
        response = client.ask(path, token)
        print(f"  client -> mirror   GET {_short(path)}{' with a token' if token else ''}")
        self.print_asked()
        told = response.headers.get("Cache-Status")
        print(
            f"  client <- mirror   {response.status}, {len(response.body)} bytes{f', {told}' if told else ''}"
        )
        return response

    def print_asked(self) -> None:
        """Print the mirror's requests since the last call."""
        servers = {self.upstream.tokens_url: "token service", self.upstream.blobs_url: "blob store"}
        for asked in self.upstream.asked():
            server = servers.get(asked.url, "registry")
            bearer = " with a token" if asked.authorization else ""
            print(f"      mirror -> {server:13}  {_short(asked.request)}{bearer}: {asked.status}")


def pull_from_virtual_host(running: Mirror, shown: Shown) -> None:
    """Pull ``docker.localhost/hello`` with all requests that docker sends."""
    client = Client(f"docker.localhost:{running.port}", running.port)
    _title(f"docker pull {client.host}/hello: a virtual host is one registry")
    ping = shown.ask(client, "/v2/")
    assert ping.status == 401, ping
    print(f"      {ping.headers['WWW-Authenticate']}")
    answer = shown.ask(client, token_path(ping, "repository:hello:pull"))
    assert answer.status == 200, answer.errors()
    token = json.loads(answer.body)["token"]
    print(f"      The client named its image hello; the token service was asked for {SCOPE}.")
    _pull(client, shown, "hello", token)


def pull_from_own_host(running: Mirror, shown: Shown) -> None:
    """Pull the image from the mirror's own host, without a token and without name resolution."""
    client = Client(f"127.0.0.1:{running.port}", running.port)
    _title(f"docker pull {client.host}/docker.io/library/hello: the mirror's own host takes no logins")
    assert shown.ask(client, "/v2/").status == 200
    _pull(client, shown, "docker.io/library/hello")
    unknown = shown.ask(client, "/v2/docker.io/library/unknown/manifests/latest")
    assert unknown.status >= 400
    print(f"      {unknown.errors()}")


def pull_by_skopeo(running: Mirror, shown: Shown) -> None:
    """Pull the image with skopeo, if it is installed."""
    skopeo = shutil.which("skopeo")
    if skopeo is None:
        print("\n(skopeo is not installed: no pull by it.)")
        return
    name = f"docker://127.0.0.1:{running.port}/docker.io/library/hello"
    _title(f"skopeo copy {name}")
    with tempfile.TemporaryDirectory() as directory:
        command = [skopeo, "--insecure-policy", "copy", "--quiet", "--src-tls-verify=false"]
        subprocess.run([*command, name, f"dir:{directory}/image"], check=True)  # noqa: S603
    shown.print_asked()
    print("  skopeo copied it, and checked it.")


def pull_without_upstream(running: Mirror, shown: Shown) -> None:
    """Pull the image from the cache while the upstream is down."""
    shown.upstream.gone.set()
    client = Client(f"127.0.0.1:{running.port}", running.port)
    _title("none of the upstream's servers answers any more")
    _pull(client, shown, "docker.io/library/hello")


def print_log(running: Mirror) -> None:
    """Print the mirror's access log, which contains no token."""
    _title("the mirror's access log")
    for line in running.log.read_text().splitlines():
        if " GET /v2/" in line or " HEAD /v2/" in line:
            print(f"  {_short(line)}")


def _pull(client: Client, shown: Shown, repository: str, token: str | None = None) -> None:
    answer = shown.ask(client, f"/v2/{repository}/manifests/latest", token)
    assert answer.status == 200, answer.errors()
    assert digest_of(answer.body) == answer.headers["Docker-Content-Digest"]
    manifest = json.loads(answer.body)
    for descriptor in (manifest["config"], *manifest["layers"]):
        blob = shown.ask(client, f"/v2/{repository}/blobs/{descriptor['digest']}", token)
        assert blob.status == 200, blob.errors()
        assert digest_of(blob.body) == descriptor["digest"]
        print(f"      {_short(descriptor['digest'])} verified")


def _title(text: str) -> None:
    print(f"\n{text}")


def _short(text: str) -> str:
    """Shorten digests, so that a line fits."""
    words = unquote(text).split("sha256:")
    return "sha256:".join([words[0], *(f"{word[:8]}…{word[64:]}" for word in words[1:])])


if __name__ == "__main__":
    main()
