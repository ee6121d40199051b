"""The configuration of clients, which has their syntax and names the mirror."""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any

import pytest

from dockmirror.client_config.clients import CLIENTS, merge_daemon_json, podman_tables, trial_pulls
from dockmirror.client_config.snippet import MirrorAddress, MirroredRegistry, Snippet

HUB = MirroredRegistry("docker.io", "docker.io", "https://registry-1.docker.io", "docker.m.example")
QUAY = MirroredRegistry("quay.io", "quay.io", "https://quay.io", "quay.m.example")
LAN = MirroredRegistry("lan.example:5000", "lan.example_5000", "http://lan.example:5000", "lan.m.example")
TLS = MirrorAddress("https", "m.example", (HUB, LAN))
PLAIN = MirrorAddress("http", "192.168.1.5:8080", (HUB, LAN))
LOCAL = MirrorAddress("http", "127.0.0.1:8080", (HUB, LAN))

each_mirror = pytest.mark.parametrize("mirror", [TLS, PLAIN, LOCAL], ids=lambda mirror: mirror.url)


def snippet_text(client: str, mirror: MirrorAddress, name: str = "") -> str:
    """Return a snippet as it is sent."""
    snippet = CLIENTS[client].snippet(mirror, name)
    assert snippet is not None
    return snippet.with_comment(CLIENTS[client].after)


def toml(client: str, mirror: MirrorAddress, name: str = "") -> Any:
    """Return a snippet, parsed."""
    return tomllib.loads(snippet_text(client, mirror, name))


@pytest.mark.parametrize("client", CLIENTS)
@each_mirror
def test_snippets_are_found_by_name(client: str, mirror: MirrorAddress) -> None:
    """Each one ends with a newline, and each file has its own path."""
    chosen = CLIENTS[client]
    for snippet in (*chosen.snippets(mirror), *chosen.more(mirror)):
        assert snippet.text.endswith("\n")
        assert chosen.snippet(mirror, snippet.name) == snippet
    assert chosen.snippet(mirror, "nothing of that name") is None
    assert all(file.path.startswith("/") for file in chosen.files(mirror))


def test_dockerd_lists_hosts_without_tls() -> None:
    """The loopback addresses need no entry."""
    assert json.loads(snippet_text("docker", TLS)) == {"registry-mirrors": ["https://m.example"]}
    assert json.loads(snippet_text("docker", LOCAL)) == {"registry-mirrors": ["http://127.0.0.1:8080"]}
    assert json.loads(snippet_text("docker", PLAIN)) == {
        "registry-mirrors": ["http://192.168.1.5:8080"],
        "insecure-registries": [
            f"http://{host}" for host in ("192.168.1.5:8080", "docker.m.example", "lan.m.example")
        ],
    }


def test_docker_desktop_reaches_its_host_by_name() -> None:
    """A loopback address would be that of its virtual machine."""
    assert json.loads(snippet_text("desktop", TLS)) == json.loads(snippet_text("docker", TLS))
    assert json.loads(snippet_text("desktop", LOCAL)) == {
        "registry-mirrors": ["http://host.docker.internal:8080"],
        "insecure-registries": ["http://host.docker.internal:8080"],
    }


def test_daemon_json_keeps_its_settings() -> None:
    """The mirror comes first, and nothing is repeated."""
    there = {"debug": True, "registry-mirrors": ["https://other.example"]}
    once = merge_daemon_json(there, TLS)
    assert once == {"debug": True, "registry-mirrors": ["https://m.example", "https://other.example"]}
    assert merge_daemon_json(once, TLS) == once
    with pytest.raises(ValueError, match="registry-mirrors"):
        merge_daemon_json({"registry-mirrors": "https://m.example"}, TLS)


@each_mirror
def test_containerd_has_a_file_for_each_registry(mirror: MirrorAddress) -> None:
    """It falls back to that registry, and says which versions need referrers; the loop names all."""
    assert "containerd 2.2 and newer" in snippet_text("containerd", mirror)
    for registry in mirror.registries:
        assert toml("containerd", mirror, registry.name) == {
            "server": registry.server,
            "host": {mirror.url: {"capabilities": ["pull", "resolve"]}},
        }
    assert snippet_text("containerd", mirror) == snippet_text("containerd", mirror, "docker.io")
    assert [file.path for file in CLIENTS["containerd"].files(mirror)] == [
        f"/etc/containerd/certs.d/{registry.name}/hosts.toml" for registry in mirror.registries
    ]
    assert all(registry.name in snippet_text("containerd", mirror, "all") for registry in mirror.registries)
    assert len(toml("containerd", mirror, "config")["plugins"]) == 2


@each_mirror
def test_podman_finds_each_registry_by_path(mirror: MirrorAddress) -> None:
    """Without TLS the mirror is marked as insecure."""
    assert [
        (each["location"], each["mirror"][0]["location"], each["mirror"][0].get("insecure", False))
        for each in toml("podman", mirror)["registry"]
    ] == [
        ("docker.io", f"{mirror.host}/docker.io", mirror.is_plain),
        ("lan.example:5000", f"{mirror.host}/lan.example_5000", mirror.is_plain),
    ]


def test_podman_asks_a_registry_without_tls_itself() -> None:
    """Only where the mirror asks the same registry so: Docker Hub has TLS behind another mirror without."""
    chained = MirroredRegistry("docker.io", "docker.io", "http://other.example", prefix="docker.io")
    registries = toml("podman", MirrorAddress("https", "m.example", (chained, LAN)))["registry"]
    assert [each.get("insecure", False) for each in registries] == [False, True]


def test_podmans_tables_are_known_by_their_prefixes() -> None:
    """Without a prefix, the location is one."""
    assert podman_tables(toml("podman", TLS)) == {"docker.io", "lan.example:5000"}
    assert podman_tables({"registry": [{"prefix": "a", "location": "b"}, {"location": "c/"}, 1]}) == {
        "a",
        "c",
    }
    assert podman_tables({"registry": {"location": "a"}}) == set()


@each_mirror
def test_buildkit_finds_registries_by_path(mirror: MirrorAddress) -> None:
    """Docker Hub is at the host itself; without TLS the mirror is marked as plain HTTP."""
    registries = toml("buildkit", mirror)["registry"]
    assert registries.pop("docker.io") == {"mirrors": [mirror.host]}
    assert registries.pop("lan.example:5000") == {"mirrors": [f"{mirror.host}/lan.example_5000"]}
    assert registries == ({mirror.host: {"http": True}} if mirror.is_plain else {})


@each_mirror
def test_k3s_has_an_endpoint_for_each_registry(mirror: MirrorAddress) -> None:
    """The file is YAML with JSON strings."""
    head = r"(?:# .*\n)+mirrors:\n"
    each = "".join(
        rf'  "{re.escape(registry.name)}":\n    endpoint:\n      - "{re.escape(mirror.url)}"\n'
        for registry in mirror.registries
    )
    assert re.fullmatch(head + each, snippet_text("k3s", mirror))


def test_kaniko_has_command_line_options() -> None:
    """The options map each registry."""
    assert snippet_text("kaniko", TLS).replace("\\\n", "").split() == [
        "--registry-mirror=m.example", "--registry-map='lan.example:5000=m.example/lan.example_5000'",
    ]  # fmt: skip
    assert "--insecure-registry=192.168.1.5:8080" in snippet_text("kaniko", PLAIN)


def test_gitlab_has_the_same_options_for_jobs_and_runners() -> None:
    """They are those of dockerd."""
    command = ["--registry-mirror=http://192.168.1.5:8080", "--insecure-registry=http://192.168.1.5:8080"]
    [runner] = toml("gitlab", PLAIN, "runner")["runners"]
    assert runner["docker"]["services"][0]["command"] == command
    assert f"command: {json.dumps(command)}\n" in snippet_text("gitlab", PLAIN)


@pytest.mark.parametrize(("client", "option"), [("helm", "--plain-http"), ("skopeo", "--tls-verify=false")])
def test_clients_without_configuration_have_an_option_without_tls(client: str, option: str) -> None:
    assert option not in snippet_text(client, TLS)
    assert option in snippet_text(client, PLAIN)


def test_comments_name_the_file_and_the_next_command() -> None:
    """Formats without comments have none."""
    assert Snippet("a\n", "/f").with_comment("do") == "# /f\n# then: do\na\n"
    assert Snippet("a\n", "/f", comment="").with_comment("do") == "a\n"
    assert Snippet("a\n").with_comment("do") == "a\n"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("localhost:1", True), ("127.1.2.3", True), ("[::1]:80", True), ("127.a", False), ("10.0.0.1", False)],
)
def test_loopback_addresses_lead_each_machine_to_itself(host: str, loopback: bool) -> None:
    assert MirrorAddress("http", host, ()).is_loopback is loopback


@pytest.mark.parametrize(
    ("registries", "host", "docker", "others"),
    [
        ((LAN, HUB), None, "hello-world", "docker.io/library/hello-world"),
        ((LAN, QUAY), None, "m.example/quay.io/podman/hello", "quay.io/podman/hello"),
        ((LAN,), None, "m.example/lan.example_5000/OWNER/IMAGE", "lan.example:5000/OWNER/IMAGE"),
        ((HUB, QUAY), QUAY, "quay.m.example/podman/hello", "quay.m.example/podman/hello"),
    ],
)
def test_the_image_is_one_of_the_mirrors_registries(
    registries: tuple[MirroredRegistry, ...], host: MirroredRegistry | None, docker: str, others: str
) -> None:
    """Docker goes to a mirror only for Docker Hub, and needs the mirror in all other names."""
    pulls = trial_pulls(MirrorAddress("https", "m.example", registries), host)
    assert [each.command for each in pulls] == [
        f"docker pull {docker}",
        f"podman pull {others}",
        f"crictl pull {others}",
    ]
