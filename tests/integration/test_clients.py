"""Clients configured by the mirror's page and by ``dockmirror client`` pull through the mirror."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from tests.long import LONG

from .conftest import MakeMachine
from .parts.clients import Containerd, Dockerd, curl
from .parts.cri import Kubelet
from .parts.images import Image, image, index
from .parts.machine import Machine
from .parts.mirror import Mirror
from .parts.process import wait_until
from .parts.registry import Registry
from .pulls import buildah_pulls, ctr_pulls, docker_pulls, podman_pulls, succeeded

pytestmark = pytest.mark.integration


@pytest.fixture
def machine(make_machine: MakeMachine) -> Machine:
    """A new machine."""
    return make_machine("curl")


def fetched(machine: Machine, mirror: Mirror, path: str) -> str:
    """The text at the page's address for a client."""
    return succeeded(curl(machine, "--fail", f"http://{mirror.host()}/client/{path}"))


def command(machine: Machine, mirror: Mirror, client: str) -> None:
    """Have ``dockmirror client`` write the client's files."""
    program = Path(sys.executable).with_name("dockmirror")
    succeeded(
        machine.run(
            "env", "DOCKMIRROR_CONFIG=" + str(mirror.configuration), str(program), "client", client,
            f"--mirror=http://{mirror.host()}", "--write",
        )
    )  # fmt: skip


def put(machine: Machine, path: str, text: str) -> None:
    """Writes a file of the machine's."""
    file = machine.directory / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.mark.parametrize("way", ["page", "command"])
def test_dockerd(mirror: Mirror, token_registry: Registry, make_machine: MakeMachine, way: str) -> None:
    """dockerd pulls Docker Hub's images by their own names, and by a virtual host and a path without TLS.

    The BuildKit within dockerd uses dockerd's mirrors, and takes a path in a Dockerfile.
    """
    machine = make_machine("dockerd", "docker", "curl")
    if way == "page":
        put(machine, "/etc/docker/daemon.json", fetched(machine, mirror, "docker"))
    else:
        command(machine, mirror, "docker")
    with Dockerd(machine) as daemon:
        (pulls if way == "page" else builds)(mirror, token_registry, daemon)


def pulls(mirror: Mirror, registry: Registry, daemon: Dockerd) -> None:
    """Pull one image by each of its names."""
    pushed = index("told dockerd")
    registry.push("library/told", pushed, "latest")
    for name in ("told", f"{mirror.host('docker')}/told", f"{mirror.host()}/docker.io/library/told"):
        docker_pulls(daemon, f"{name}:latest", pushed)
        succeeded(daemon.docker("image", "rm", f"{name}:latest"))


def builds(mirror: Mirror, registry: Registry, daemon: Dockerd) -> None:
    """Build upon an image by its own name and by a path."""
    pushed = image("built upon")
    registry.push("library/base", pushed, "latest")
    directory = daemon.machine.home
    for base in ("base", f"{mirror.host()}/docker.io/library/base"):
        (directory / "Dockerfile").write_text(f"FROM {base}:latest\nCOPY Dockerfile /\n")
        succeeded(daemon.build(directory, "built"))
        [inspected] = json.loads(succeeded(daemon.docker("image", "inspect", "built")))
        assert pushed.config is not None
        layers = json.loads(pushed.config.data)["rootfs"]["diff_ids"]
        assert inspected["RootFS"]["Layers"][:-1] == layers
    served(mirror, "/v2/library/base/manifests/", "/v2/docker.io/library/base/manifests/")


def test_dockerd_reloads(mirror: Mirror, token_registry: Registry, make_machine: MakeMachine) -> None:
    """A reload is enough for pulls; the BuildKit within dockerd knows only the mirrors from its start."""
    pushed = index("told a running dockerd")
    token_registry.push("library/reloaded", pushed, "latest")
    machine = make_machine("dockerd", "docker", "curl")
    with Dockerd(machine) as daemon:
        assert mirror.host() not in succeeded(daemon.docker("info"))
        put(machine, "/etc/docker/daemon.json", fetched(machine, mirror, "docker"))
        daemon.reload()
        wait_until(lambda: mirror.host() in succeeded(daemon.docker("info")), "dockerd has reloaded")
        for name in ("reloaded", f"{mirror.host()}/docker.io/library/reloaded"):
            docker_pulls(daemon, f"{name}:latest", pushed)
        (machine.home / "Dockerfile").write_text("FROM reloaded:latest\nCOPY Dockerfile /\n")
        succeeded(daemon.docker("image", "rm", "--force", "reloaded:latest"))
        assert "registry-1.docker.io" in daemon.build(machine.home, "built").stderr


def test_setup_script(mirror: Mirror, token_registry: Registry, make_machine: MakeMachine) -> None:
    """The script of a running dockerd shows its changes, applies and tests them, and takes them back."""
    token_registry.push("library/hello-world", index("hello"), "latest")
    machine = make_machine("dockerd", "docker", "curl", "dash")
    daemon_json = machine.etc / "docker/daemon.json"
    daemon_json.write_text('{"debug":  true}')
    with Dockerd(machine) as daemon:
        systemctl = machine.home / "bin/systemctl"
        systemctl.parent.mkdir()
        systemctl.write_text(f"#!/bin/sh\ntest \"$*\" = 'reload docker' && kill -HUP {daemon.daemon_pid()}\n")
        systemctl.chmod(0o755)
        machine.variables["PATH"] = f"{systemctl.parent}:{machine.environment['PATH']}"
        succeeded(curl(machine, "-fLo", "setup.sh", f"{mirror.url}/setup/docker"))
        assert f'+    "{mirror.url}"' in succeeded(machine.run("dash", "setup.sh"))
        assert daemon_json.read_text() == '{"debug":  true}'
        applied = succeeded(machine.run("dash", "setup.sh", "--apply"))
        assert "hello-world:latest was pulled through the mirror." in applied
        assert mirror.url in succeeded(daemon.docker("info"))
        succeeded(machine.run("dash", "setup.sh", "--undo"))
        wait_until(lambda: mirror.url not in succeeded(daemon.docker("info")), "dockerd has reloaded")
    assert daemon_json.read_text() == '{"debug":  true}'


WAYS = ["page", "command", "script"] if LONG else ["page", "command"]


def set_up(machine: Machine, mirror: Mirror, registry: Registry, client: str) -> None:
    """Have the mirror's script set up a client, and test it."""
    registry.push("library/hello-world", index("hello"), "latest")
    succeeded(curl(machine, "-fLo", "setup.sh", f"{mirror.url}/setup/{client}"))
    assert "was pulled through the mirror" in succeeded(machine.run("sh", "setup.sh", "--apply"))


@pytest.mark.parametrize("way", WAYS)
def test_containerd(mirror: Mirror, token_registry: Registry, containerd: Containerd, way: str) -> None:
    """containerd goes by the files of its directory."""
    pushed = index(f"told containerd {way}")
    token_registry.push("library/told-containerd", pushed, way)
    if way == "page":
        hosts = containerd.hosts("docker.io", fetched(containerd.machine, mirror, "containerd/docker.io"))
    else:
        for file in (containerd.machine.etc / "containerd").rglob("hosts.toml"):
            file.unlink()
        if way == "script":
            set_up(containerd.machine, mirror, token_registry, "containerd")
        else:
            command(containerd.machine, mirror, "containerd")
        hosts = "/etc/containerd/certs.d"
    ctr_pulls(containerd, f"docker.io/library/told-containerd:{way}", pushed, f"--hosts-dir={hosts}")


@pytest.mark.parametrize("way", WAYS)
def test_podman_and_buildah(
    mirror: Mirror, token_registry: Registry, podman_machine: Machine, way: str
) -> None:
    """podman and buildah go by the drop-in, and have their own settings beside it."""
    pushed = image(f"told podman {way}")
    token_registry.push("library/told-podman", pushed, way)
    if way == "page":
        path = "/etc/containers/registries.conf.d/50-dockmirror.conf"
        put(podman_machine, path, fetched(podman_machine, mirror, "podman"))
    elif way == "script":
        set_up(podman_machine, mirror, token_registry, "podman")
    else:
        command(podman_machine, mirror, "podman")
    for pull in (podman_pulls, buildah_pulls):
        pull(podman_machine, f"docker.io/library/told-podman@{pushed.digest}", pushed)


def served(mirror: Mirror, *paths: str) -> None:
    """The mirror has answered all of this."""
    log = mirror.read_log()
    assert [path for path in paths if path not in log] == []


def test_on_its_own_machine(mirror: Mirror, token_registry: Registry, make_machine: MakeMachine) -> None:
    """dockerd is told of no more than an address there, and pulls and builds through it all the same."""
    pushed = image("on one machine")
    token_registry.push("library/near", pushed, "latest")
    machine = make_machine("dockerd", "docker", "curl")
    told = succeeded(curl(machine, "--fail", f"{mirror.url}/client/docker"))
    assert json.loads(told) == {"registry-mirrors": [mirror.url]}
    put(machine, "/etc/docker/daemon.json", told)
    (machine.home / "Dockerfile").write_text("FROM near\n")
    with Dockerd(machine) as daemon:
        succeeded(daemon.build(machine.home, "built"))
        docker_pulls(daemon, "near:latest", pushed)
        docker_pulls(daemon, f"127.0.0.1:{mirror.port}/docker.io/library/near:latest", pushed)


@pytest.mark.parametrize("name", ["", "/runner"] if LONG else ["/runner"])
def test_gitlab(mirror: Mirror, token_registry: Registry, make_machine: MakeMachine, name: str) -> None:
    """dockerd takes the options that a job's or a runner's file gives its service."""
    pushed = image(f"built in a job{name}")
    token_registry.push("library/job", pushed, name[1:] or "job")
    machine = make_machine("dockerd", "docker", "curl")
    [options] = re.findall(r"command(?:: | = )(\[.*\])", fetched(machine, mirror, f"gitlab{name}"))
    with Dockerd(machine, options=json.loads(options)) as daemon:
        for place in ("job", f"{mirror.host()}/docker.io/library/job"):
            docker_pulls(daemon, f"{place}:{name[1:] or 'job'}", pushed)


@pytest.fixture
def node(make_machine: MakeMachine) -> Machine:
    """A machine for a kubelet."""
    machine = make_machine("containerd", "ctr", "curl")
    (machine.etc / "containerd").mkdir()
    return machine


def kubelet_pulls(kubelet: Kubelet, reference: str, pushed: Image) -> None:
    """Pull as a pod's image is, and compare what containerd holds."""
    native = pushed.children[0] if pushed.children else pushed
    assert native.config is not None
    assert kubelet.pull(reference) == native.config.digest
    for content in (pushed.manifest, native.manifest, *native.blobs):
        assert kubelet.containerd.content(content.digest) == content.data


def test_kubernetes(mirror: Mirror, token_registry: Registry, open_registry: Registry, node: Machine) -> None:
    """The kubelet's containerd goes by the files that the loop has written, where its own file says so."""
    pushed = index("told a kubelet")
    token_registry.push("library/told-kubelet", pushed, "1")
    open_registry.push("own/told-kubelet", pushed, "1")
    succeeded(node.run("sh", "-euc", fetched(node, mirror, "containerd/all")))
    kubelet = Kubelet(node, fetched(node, mirror, "containerd/config"))
    with kubelet.containerd:
        kubelet_pulls(kubelet, "docker.io/library/told-kubelet:1", pushed)
        kubelet_pulls(kubelet, f"127.0.0.1:{open_registry.port}/own/told-kubelet:1", pushed)
    served(mirror, "/v2/own/told-kubelet/manifests/")


@pytest.mark.parametrize("way", ["page", "command"] if LONG else ["command"])
def test_k3s(mirror: Mirror, token_registry: Registry, node: Machine, way: str) -> None:
    """containerd goes by what k3s makes of the file: an address for each registry, with ``/v2`` behind it."""
    pushed = index(f"told k3s {way}")
    token_registry.push("library/told-k3s", pushed, way)
    path = "/etc/rancher/k3s/registries.yaml"
    if way == "page":
        put(node, path, fetched(node, mirror, "k3s"))
    else:
        command(node, mirror, "k3s")
    for registry, endpoint in endpoints((node.directory / path.lstrip("/")).read_text()):
        host = f'[host."{endpoint}/v2"]\n  capabilities = ["pull", "resolve"]\n'
        hosts = f'server = "https://{registry}/v2"\n\n{host}'
        put(node, f"/etc/containerd/certs.d/{registry}/hosts.toml", hosts)
    table = '[plugins."io.containerd.grpc.v1.cri".registry]\n'
    kubelet = Kubelet(node, f'{table}config_path = "/etc/containerd/certs.d"\n')
    with kubelet.containerd:
        kubelet_pulls(kubelet, f"docker.io/library/told-k3s:{way}", pushed)


def endpoints(registries: str) -> list[tuple[str, str]]:
    """The registries of a ``registries.yaml`` with their endpoints."""
    return re.findall(r'^  "(.*)":\n    endpoint:\n      - "(.*)"$', registries, re.MULTILINE)


def test_by_name(mirror: Mirror, token_registry: Registry, skopeo_machine: Machine) -> None:
    """skopeo and curl take the commands as they are, for an image that there is."""
    pushed = image("told by name")
    token_registry.push("library/told-name", pushed, "latest")
    lines = fetched(skopeo_machine, mirror, "skopeo").replace("IMAGE", "told-name").replace("TAG", "latest")
    commands = {line.split()[0]: line.split() for line in lines.splitlines()}
    inspected = json.loads(succeeded(skopeo_machine.run(*commands["skopeo"])))
    assert inspected["Digest"] == pushed.digest
    assert succeeded(skopeo_machine.run(*commands["curl"])).encode() == pushed.manifest.data


def test_what_came_through(mirror: Mirror, token_registry: Registry, machine: Machine) -> None:
    """The page shows everybody who pulled what the mirror saw of it."""
    pushed = image("seen")
    token_registry.push("library/seen", pushed, "latest")
    succeeded(curl(machine, f"http://{mirror.host()}/v2/docker.io/library/seen/manifests/latest?secret=1"))
    url = f"http://{mirror.host()}/"
    wait_until(lambda: "seen:latest" in succeeded(curl(machine, url)), "the pull is in the history")
    assert "secret" not in succeeded(curl(machine, url))
