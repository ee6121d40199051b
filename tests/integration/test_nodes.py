"""The chart's DaemonSet on a node: its programs run as it says, and containerd pulls by their files."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from .conftest import MakeDirectory, MakeMachine
from .parts.authority import Authority
from .parts.cluster import Cluster
from .parts.cri import Kubelet
from .parts.helm import CHART, HELM, NAMESPACE, RELEASE, Object, arguments, helm, of_kind, pod_spec, render
from .parts.images import index
from .parts.machine import Machine
from .parts.mirror import Mirror
from .parts.process import BYTECODE, CLEAN_ENVIRONMENT, Process, free_port, listens, wait_until
from .parts.programs import require
from .parts.registry import Registry
from .test_clients import kubelet_pulls, served

pytestmark = pytest.mark.integration

BIN = Path(sys.executable).parent
CONFIG = '[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = "/etc/containerd/certs.d"\n'


class Node:
    """A machine, and what the DaemonSets of a rendered chart run on it."""

    def __init__(self, machine: Machine, mirror: Mirror, objects: list[Object]) -> None:
        self.machine = machine
        self.directory = machine.etc / "containerd/certs.d"
        self.ready = machine.home / "ready"
        self._log = machine.home / "node.log"
        self._objects = objects
        self._places = {
            "/opt/dockmirror/bin": str(BIN), "/etc/dockmirror/dockmirror.toml": str(mirror.configuration),
            "/node": str(machine.directory), "/tmp/ready": str(self.ready),  # noqa: S108
        }  # fmt: skip
        service = {
            "M_DOCKMIRROR_SERVICE_HOST": "127.0.0.1",
            "M_DOCKMIRROR_SERVICE_PORT": str(mirror.port),
            "M_DOCKMIRROR_PORT": f"tcp://127.0.0.1:{mirror.port}",
        }
        self._environment = {**CLEAN_ENVIRONMENT, **BYTECODE, **service}
        (machine.etc / "containerd").mkdir()
        self.configuration = machine.etc / "containerd/config.toml"
        self.configuration.write_text(CONFIG)

    def command(self, workload: str, container: str, **replaced: str) -> list[str]:
        """The command of a container, with the paths of this machine."""
        spec = pod_spec(of_kind(self._objects, "DaemonSet", workload))
        each = {each["name"]: each for each in [*spec.get("initContainers", []), *spec["containers"]]}[
            container
        ]
        command = [*each["command"], *arguments(each, self._environment)]
        for before, after in self._places.items():
            command = [text.replace(before, after) for text in command]
        return [replaced.get(text.partition("=")[0].removeprefix("--"), text) for text in command]

    def configuring(self) -> Process:
        """The process of the DaemonSet's pod."""
        self.ready.unlink(missing_ok=True)
        command = self.command("-nodes", "configure", every="--every=1")
        return Process(command, self._log, self.ready.exists, self._environment)

    def relaying(self, port: int) -> Process:
        """The process that passes on connections to a port of the node."""
        command = self.command("-nodes", "relay")
        return Process(command, self._log, lambda: listens("127.0.0.1", port), self._environment)

    def remove(self) -> subprocess.Popen[str]:
        """Start what the hook runs."""
        return subprocess.Popen(  # noqa: S603
            self.command("-removal", "remove"), env=self._environment, stdout=subprocess.PIPE, text=True
        )

    def refusing(self) -> Process:
        """The process of a pod whose containerd does not read the files."""
        words = "containerd does not read /etc/containerd/certs.d"
        command = self.configuring().command
        return Process(command, self._log, lambda: words in self.report(), self._environment)

    def wait(self, workload: Object, cluster: Cluster, account: Path) -> subprocess.CompletedProcess[str]:
        """Run the pod of the hook's Job to its end."""
        [container] = pod_spec(workload)["containers"]
        place = {"KUBERNETES_SERVICE_HOST": cluster.host, "KUBERNETES_SERVICE_PORT": str(cluster.port)}
        environment = {**CLEAN_ENVIRONMENT, **BYTECODE, **place}
        command = [str(BIN / "dockmirror"), *container["args"], f"--service-account={account}"]
        return subprocess.run(  # noqa: S603
            command, env=environment, capture_output=True, text=True, check=True
        )

    def report(self) -> str:
        """The log of the pod."""
        return self._log.read_text()


def node(machine: Machine, mirror: Mirror, home: Path, values: Mapping[str, Any]) -> Node:
    """A node of a cluster in which the chart was installed."""
    return Node(machine, mirror, render(home, {"nodes.enabled": True, **values}))


@pytest.fixture
def machine(make_machine: MakeMachine) -> Machine:
    """A machine for a kubelet."""
    require(HELM)
    return make_machine("containerd", "ctr", "curl")


def test_by_the_service(
    mirror: Mirror,
    token_registry: Registry,
    open_registry: Registry,
    machine: Machine,
    directory: MakeDirectory,
) -> None:
    """Pulls go through the mirror even after the pod was stopped, and past it after the removal."""
    pushed = index("a node of a cluster")
    token_registry.push("library/of-a-node", pushed, "1")
    open_registry.push("own/of-a-node", pushed, "1")
    own = f"127.0.0.1:{open_registry.port}/own/of-a-node"
    each = node(machine, mirror, directory("home"), {})
    foreign = each.directory / "registry.example.com/hosts.toml"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("server = 'https://registry.example.com'\n")
    configuring = each.configuring()
    with Kubelet(machine, CONFIG).containerd, configuring:
        kubelet = Kubelet(machine, CONFIG)
        kubelet_pulls(kubelet, "docker.io/library/of-a-node:1", pushed)
        configuring.stop()
        kubelet_pulls(kubelet, f"{own}:1", pushed)
        served(mirror, "/v2/own/of-a-node/manifests/1")
        with each.configuring():
            removing = each.remove()
            assert removing.stdout is not None
            assert "waiting for the process" in removing.stdout.readline()
            assert (each.directory / "docker.io/hosts.toml").exists()
        assert removing.communicate(timeout=120)[0].count("removed") > 10
        assert removing.returncode == 0
        assert [file.parent.name for file in each.directory.glob("*/*")] == ["registry.example.com"]
        open_registry.push("own/of-a-node", pushed, "2")
        kubelet_pulls(kubelet, f"{own}:2", pushed)
    assert "/v2/own/of-a-node/manifests/2" not in mirror.read_log()


def test_by_a_port_of_the_node(
    mirror: Mirror, open_registry: Registry, machine: Machine, directory: MakeDirectory
) -> None:
    """containerd reaches the mirror at localhost, and the registry itself while nothing listens there."""
    pushed = index("a managed node")
    open_registry.push("own/managed", pushed, "1")
    open_registry.push("own/managed", pushed, "2")
    port = free_port()
    each = node(machine, mirror, directory("home"), {"nodes.mode": "localhost", "nodes.localPort": port})
    name = f"127.0.0.1:{open_registry.port}"
    kubelet = Kubelet(machine, CONFIG)
    with kubelet.containerd, each.configuring():
        hosts = tomllib.loads((each.directory / name / "hosts.toml").read_text())
        assert list(hosts["host"]) == [f"http://localhost:{port}"]
        with each.relaying(port):
            kubelet_pulls(kubelet, f"{name}/own/managed:1", pushed)
        served(mirror, "/v2/own/managed/manifests/1")
        kubelet_pulls(kubelet, f"{name}/own/managed:2", pushed)
    assert "/v2/own/managed/manifests/2" not in mirror.read_log()


def test_a_missing_config_path(mirror: Mirror, machine: Machine, directory: MakeDirectory) -> None:
    """The pod becomes ready when containerd's own file names the directory, and says so until then."""
    each = node(machine, mirror, directory("home"), {})
    each.configuration.write_text("version = 2\n")
    with each.refusing():
        assert not each.ready.exists()
        each.configuration.write_text(CONFIG)
        wait_until(each.ready.exists, "the pod is ready")
    assert each.report().count("containerd does not read") == 1
    assert (
        f"for the release {RELEASE} in {NAMESPACE}.\n" in (each.directory / "quay.io/hosts.toml").read_text()
    )


def test_install_and_uninstall(
    mirror: Mirror, machine: Machine, directory: MakeDirectory, authority: Authority
) -> None:
    """helm installs, upgrades and uninstalls: the files come, stay, and are gone when helm has ended."""
    home = directory("home")
    each = node(machine, mirror, home, {})
    (home / "namespace").write_text(NAMESPACE)
    (home / "token").write_text("token")
    shutil.copy(authority.certificate, home / "ca.crt")
    configuring = each.configuring()
    waited: list[str] = []

    def run(workload: Object) -> None:
        kind, name = workload["kind"], workload["metadata"]["name"]
        if name.endswith("-nodes"):
            configuring.start()
        elif kind == "DaemonSet":
            cluster.set_status(kind, name, {"observedGeneration": 1, "desiredNumberScheduled": 1})
            wait_until(lambda: any(event[:2] == ("POST", "Job") for event in cluster.events), "the Job")
            with each.remove() as removing:
                configuring.stop()
                assert removing.communicate(timeout=120)[0].count("removed") > 10
            ready = {"observedGeneration": 1, "desiredNumberScheduled": 1, "numberReady": 1}
            cluster.set_status(kind, name, ready)
        elif kind == "Job":
            waited.extend(each.wait(workload, cluster, home).stdout.splitlines())
            done = {"conditions": [{"type": "Complete", "status": "True"}], "succeeded": 1}
            cluster.set_status(kind, name, done)

    with Cluster(authority, run) as cluster:
        (home / "kubeconfig").write_text(cluster.kubeconfig())
        kubeconfig = str(home / "kubeconfig")
        options = [RELEASE, f"--namespace={NAMESPACE}"]
        helm("install", *options, str(CHART), "--set=nodes.enabled=true", home=home, KUBECONFIG=kubeconfig)
        hosts = each.directory / "quay.io/hosts.toml"
        wait_until(hosts.exists, "the files are written")
        helm(
            "upgrade",
            *options,
            str(CHART),
            "--set=nodes.enabled=true,grace=10",
            home=home,
            KUBECONFIG=kubeconfig,
        )
        assert hosts.exists()
        helm("uninstall", *options, home=home, KUBECONFIG=kubeconfig)
        assert list(each.directory.iterdir()) == []
        assert waited[-1] == "m-dockmirror-removal: 1 of 1 nodes are done"
        assert ("DELETE", "DaemonSet", "m-dockmirror-removal") in cluster.events
        removed = [event[1:] for event in cluster.events if event[0] == "DELETE"]
        assert sorted(removed) == sorted(event[1:] for event in cluster.events if event[0] == "POST")
