"""What each client is told is in its own syntax, and says what it has to."""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any

import pytest

from dockmirror.client_config.clients import CLIENTS
from dockmirror.client_config.docker import merged
from dockmirror.client_config.mirror_address import MirrorAddress, MirroredRegistry
from dockmirror.client_config.snippet import Snippet

HUB = MirroredRegistry("docker.io", "docker.io", "https://registry-1.docker.io", "docker.m.example")
LAN = MirroredRegistry("lan.example:5000", "lan.example_5000", "http://lan.example:5000", "lan.m.example")
TLS = MirrorAddress("https", "m.example", (HUB, LAN))
PLAIN = MirrorAddress("http", "192.168.1.5:8080", (HUB, LAN))
LOCAL = MirrorAddress("http", "127.0.0.1:8080", (HUB, LAN))

each_mirror = pytest.mark.parametrize("mirror", [TLS, PLAIN, LOCAL], ids=lambda mirror: mirror.url)


def told(client: str, mirror: MirrorAddress, name: str = "") -> str:
    """The text of a snippet, as it is sent."""
    snippet = CLIENTS[client].snippet(mirror, name)
    assert snippet is not None
    return snippet.commented(CLIENTS[client].after)


def toml(client: str, mirror: MirrorAddress, name: str = "") -> Any:
    """The same, parsed."""
    return tomllib.loads(told(client, mirror, name))


@pytest.mark.parametrize("client", CLIENTS)
@each_mirror
def test_every_snippet(client: str, mirror: MirrorAddress) -> None:
    """Ends with the end of a line, and is found by its name; files have a path that nothing else has."""
    chosen = CLIENTS[client]
    for snippet in (*chosen.snippets(mirror), *chosen.more(mirror)):
        assert snippet.text.endswith("\n")
        assert chosen.snippet(mirror, snippet.name) == snippet
    assert chosen.snippet(mirror, "nothing of that name") is None
    assert all(file.path.startswith("/") for file in chosen.files(mirror))


def test_dockerd() -> None:
    """Is told of the mirror by its address, and of hosts without TLS unless they are its own machine's."""
    assert json.loads(told("docker", TLS)) == {"registry-mirrors": ["https://m.example"]}
    assert json.loads(told("docker", LOCAL)) == {"registry-mirrors": ["http://127.0.0.1:8080"]}
    assert json.loads(told("docker", PLAIN)) == {
        "registry-mirrors": ["http://192.168.1.5:8080"],
        "insecure-registries": [
            "http://192.168.1.5:8080",
            "http://docker.m.example",
            "http://lan.m.example",
        ],
    }


def test_docker_desktop() -> None:
    """Reaches what runs on its machine by a name of its own, which is no loopback address to it."""
    assert json.loads(told("desktop", TLS)) == json.loads(told("docker", TLS))
    assert json.loads(told("desktop", LOCAL)) == {
        "registry-mirrors": ["http://host.docker.internal:8080"],
        "insecure-registries": ["http://host.docker.internal:8080"],
    }


def test_merged() -> None:
    """What a daemon.json says stays, the mirror is asked first, and nothing is said twice."""
    there = {"debug": True, "registry-mirrors": ["https://other.example"]}
    once = merged(there, TLS)
    assert once == {"debug": True, "registry-mirrors": ["https://m.example", "https://other.example"]}
    assert merged(once, TLS) == once
    with pytest.raises(ValueError, match="registry-mirrors"):
        merged({"registry-mirrors": "https://m.example"}, TLS)


@each_mirror
def test_containerd(mirror: MirrorAddress) -> None:
    """Has a file for each registry, which falls back to that registry; the loop names them all."""
    for registry in mirror.registries:
        assert toml("containerd", mirror, registry.name) == {
            "server": registry.server,
            "host": {mirror.url: {"capabilities": ["pull", "resolve"]}},
        }
    assert told("containerd", mirror) == told("containerd", mirror, "docker.io")
    assert [file.path for file in CLIENTS["containerd"].files(mirror)] == [
        f"/etc/containerd/certs.d/{registry.name}/hosts.toml" for registry in mirror.registries
    ]
    assert all(registry.name in told("containerd", mirror, "all") for registry in mirror.registries)
    assert len(toml("containerd", mirror, "config")["plugins"]) == 2


@each_mirror
def test_containerd_is_told_about_referrers(mirror: MirrorAddress) -> None:
    """The file says which versions need ``referrers`` and which reject it; all versions read it as it is."""
    assert "containerd 2.2 and newer" in told("containerd", mirror)
    (host,) = toml("containerd", mirror)["host"].values()
    assert host["capabilities"] == ["pull", "resolve"]


@each_mirror
def test_podman(mirror: MirrorAddress) -> None:
    """Finds each registry by path, and is told where there is no TLS."""
    assert [
        (each["location"], each["mirror"][0]["location"], each["mirror"][0].get("insecure", False))
        for each in toml("podman", mirror)["registry"]
    ] == [
        ("docker.io", f"{mirror.host}/docker.io", mirror.plain),
        ("lan.example:5000", f"{mirror.host}/lan.example_5000", mirror.plain),
    ]


@each_mirror
def test_buildkit(mirror: MirrorAddress) -> None:
    """Finds Docker Hub at the host itself and others by path, and is told where there is no TLS."""
    registries = toml("buildkit", mirror)["registry"]
    assert registries.pop("docker.io") == {"mirrors": [mirror.host]}
    assert registries.pop("lan.example:5000") == {"mirrors": [f"{mirror.host}/lan.example_5000"]}
    assert registries == ({mirror.host: {"http": True}} if mirror.plain else {})


@each_mirror
def test_k3s(mirror: MirrorAddress) -> None:
    """Has an endpoint for each registry, in YAML of which JSON's strings are a part."""
    head = r"(?:# .*\n)+mirrors:\n"
    each = "".join(
        rf'  "{re.escape(registry.name)}":\n    endpoint:\n      - "{re.escape(mirror.url)}"\n'
        for registry in mirror.registries
    )
    assert re.fullmatch(head + each, told("k3s", mirror))


def test_kaniko() -> None:
    """Is given options for its command line."""
    assert told("kaniko", TLS).replace("\\\n", "").split() == [
        "--registry-mirror=m.example", "--registry-map='lan.example:5000=m.example/lan.example_5000'",
    ]  # fmt: skip
    assert "--insecure-registry=192.168.1.5:8080" in told("kaniko", PLAIN)


def test_gitlab() -> None:
    """Gives the same options to a job's dockerd and to a runner's."""
    command = ["--registry-mirror=http://192.168.1.5:8080", "--insecure-registry=http://192.168.1.5:8080"]
    [runner] = toml("gitlab", PLAIN, "runner")["runners"]
    assert runner["docker"]["services"][0]["command"] == command
    assert f"command: {json.dumps(command)}\n" in told("gitlab", PLAIN)


@pytest.mark.parametrize("client", ["helm", "skopeo"])
def test_clients_by_name(client: str) -> None:
    """Are told on each command where there is no TLS."""
    assert "plain" not in told(client, TLS) + told(client, TLS)
    assert ("--plain-http" if client == "helm" else "--tls-verify=false") in told(client, PLAIN)


def test_comments() -> None:
    """Say where the lines go and what to do then, in a syntax that has comments."""
    assert Snippet("a\n", "/f").commented("do") == "# /f\n# then: do\na\n"
    assert Snippet("a\n", "/f", comment="").commented("do") == "a\n"
    assert Snippet("a\n").commented("do") == "a\n"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost:1", True),
        ("127.1.2.3", True),
        ("[::1]:80", True),
        ("127.example", False),
        ("10.0.0.1", False),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    """Is what leads to each machine itself."""
    assert MirrorAddress("http", host, ()).loopback is loopback
