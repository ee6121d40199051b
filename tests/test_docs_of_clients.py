"""The documents tell each client the same as the mirror's page and the command."""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any

import pytest

from dockmirror.client_config.clients import CLIENTS, download_archive
from dockmirror.client_config.snippet import MirrorAddress, MirroredRegistry

from .test_docs import DOCUMENTS, ROOT, text

HUB = MirroredRegistry("docker.io", "docker.io", "https://registry-1.docker.io", "docker.mirror.example.com")
GHCR = MirroredRegistry("ghcr.io", "ghcr.io", "https://ghcr.io", "ghcr.mirror.example.com")
TLS = MirrorAddress("https", "mirror.example.com", (HUB, GHCR))
PLAIN = MirrorAddress("http", "192.168.1.5:8080", (HUB, GHCR))


def section(document: str, heading: str) -> str:
    """Return the text below a heading, up to the next one."""
    return text(document).split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def blocks(heading: str, language: str) -> list[str]:
    """The blocks of code of a section of the users' document."""
    return re.findall(rf"```{language}\n(.*?)```", section("docs/how-to/clients.md", heading), re.DOTALL)


def told(client: str, mirror: MirrorAddress = TLS, name: str = "") -> str:
    """Return the text that the page prints."""
    snippet = CLIENTS[client].snippet(mirror, name)
    assert snippet is not None
    return snippet.text


def toml(string: str) -> Any:
    """Return the parsed content, whatever its layout."""
    return tomllib.loads(string)


def test_dockerd() -> None:
    """As JSON."""
    assert [json.loads(each) for each in blocks("dockerd", "json")] == [json.loads(told("docker"))]
    insecure = json.loads(told("docker", PLAIN))["insecure-registries"]
    assert json.dumps(insecure[:1]) in section("docs/how-to/clients.md", "dockerd")


def test_containerd() -> None:
    """A file of one registry, and the table of containerd's own file."""
    hosts, config = map(toml, blocks("containerd, Kubernetes", "toml"))
    assert hosts == toml(told("containerd"))
    assert config["plugins"].items() <= toml(told("containerd", TLS, "config"))["plugins"].items()


@pytest.mark.parametrize(
    ("client", "heading"), [("podman", "podman, buildah, CRI-O"), ("buildkit", "buildkit")]
)
def test_toml(client: str, heading: str) -> None:
    """The whole file, for two registries."""
    assert [toml(each) for each in blocks(heading, "toml")] == [toml(told(client))]


@pytest.mark.parametrize(("client", "heading"), [("k3s", "k3s"), ("gitlab", "GitLab CI, docker-in-docker")])
def test_yaml(client: str, heading: str) -> None:
    """The very lines."""
    assert blocks(heading, "yaml") == [told(client)]


def test_kaniko() -> None:
    """The options, for another registry besides."""
    quay = MirroredRegistry("quay.io", "quay.io", "https://quay.io")
    options = told("kaniko", MirrorAddress("https", "mirror.example.com", (HUB, quay, GHCR)))
    assert [each.split() for each in blocks("kaniko", "")] == [options.replace("\\\n", "").split()]


@pytest.mark.parametrize(
    ("client", "heading", "words"),
    [
        ("podman", "podman, buildah, CRI-O", ["insecure = true"]),
        ("buildkit", "buildkit", ['[registry."192.168.1.5:8080"]', "http = true"]),
        ("kaniko", "kaniko", ["--insecure-registry=192.168.1.5:8080"]),
        ("gitlab", "GitLab CI, docker-in-docker", ['"--insecure-registry=http://192.168.1.5:8080"']),
        ("skopeo", "skopeo, crane, curl", ["--tls-verify=false", "--insecure"]),
        ("helm", "helm, oras", ["--plain-http"]),
    ],
)
def test_without_tls(client: str, heading: str, words: list[str]) -> None:
    """The lines have just what the document adds for that case."""
    for word in words:
        assert f"`{word}`" in section("docs/how-to/clients.md", heading)
        assert word in told(client, PLAIN)
        assert word not in told(client, TLS)


def test_archives() -> None:
    """For another image."""
    lines = (
        download_archive(TLS)
        .text.replace("busybox:latest", "nginx:1.27")
        .replace("busybox", "nginx")
        .splitlines()
    )
    assert "".join(f"$ {line}\n" for line in lines) in section("docs/how-to/clients.md", "Without a network")


def test_paths() -> None:
    """Each file is named by its path."""
    for client, heading in (
        ("docker", "dockerd"), ("containerd", "containerd, Kubernetes"), ("podman", "podman, buildah, CRI-O"),
        ("k3s", "k3s"), ("buildkit", "buildkit"),
    ):  # fmt: skip
        assert f"`{CLIENTS[client].snippets(TLS)[0].path}`" in section("docs/how-to/clients.md", heading)


@pytest.mark.parametrize(
    "document",
    sorted(
        str(each.relative_to(ROOT))
        for each in DOCUMENTS
        if re.search(r"/client/[a-z]", each.read_text("utf-8"))
    ),
)
def test_addresses(document: str) -> None:
    """Every address of a client's lines that is named is one."""
    asked = re.findall(r"/client/([a-z0-9]+)(?:/([a-z0-9.]+))?", text(document))
    assert asked
    for client, name in asked:
        assert told(client, TLS, name)


def test_readme() -> None:
    """The table of clients says it in short."""
    table = section("README.md", "Pointing clients at it")
    assert f"`{json.dumps(json.loads(told('docker')))[1:-1]}`" in table
    for client in ("containerd", "k3s", "buildkit"):
        assert f"`{CLIENTS[client].snippets(TLS)[0].path}`" in table
    for client, words in {
        "containerd": ['server = "https://registry-1.docker.io"', '[host."https://mirror.example.com"]'],
        "podman": ["[[registry.mirror]]", 'location = "mirror.example.com/docker.io"'],
        "buildkit": ['[registry."docker.io"]', 'mirrors = ["mirror.example.com"]'],
    }.items():
        for word in words:
            assert f"`{word}`" in table
            assert word in told(client)
