"""The Helm chart, rendered by helm and validated against the schemas of the Kubernetes API."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-not-found, import-untyped, unused-ignore]
import pytest
import yaml  # type: ignore[import-not-found, import-untyped, unused-ignore]

from dockmirror.config.load import load

from ..test_docs import code, table
from .parts.helm import CHART, HELM, KUBECTL, Object, helm, of_kind, pod_spec, render
from .parts.programs import require

pytestmark = pytest.mark.integration

NODES: dict[str, Any] = {"nodes.enabled": True}
LOCALHOST = {**NODES, "nodes.mode": "localhost", "persistence.enabled": False, "cacheSize": ""}
EVERYTHING = {
    **NODES,
    "replicas": 3,
    "config": 'domain = "mirror.example.com"\n',
    "image.digest": "sha256:" + "0" * 64,
    "imagePullSecrets": [{"name": "login"}],
    "env": [{"name": "DOCKMIRROR_WORKERS", "value": "2"}],
    "envFrom": [{"secretRef": {"name": "bucket"}}],
    "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
    "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/ca"}],
    "tolerations": [{"operator": "Exists"}],
    "priorityClassName": "high",
    "persistence.storageClass": "fast",
    "ingress.enabled": True,
    "ingress.className": "nginx",
    "ingress.hosts": ["mirror.example.com", "*.mirror.example.com"],
    "ingress.tls": [{"secretName": "mirror-tls", "hosts": ["mirror.example.com"]}],
    "gateway.enabled": True,
    "gateway.parentRefs": [{"name": "gateway"}],
    "gateway.hostnames": ["mirror.example.com"],
    "serviceMonitor.enabled": True,
    "prometheusRule.enabled": True,
    "networkPolicy.enabled": True,
    "networkPolicy.from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
    "nodes.affinity": {"nodeAffinity": {}},
    "nodes.securityContext": {"seLinuxOptions": {"type": "spc_t"}},
}
VALUES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "localhost": LOCALHOST,
    "address": {**NODES, "nodes.mode": "address", "nodes.url": "https://mirror.example.com"},
    "everything": EVERYTHING,
}
WITHOUT_SCHEMA = {"ServiceMonitor", "PrometheusRule", "HTTPRoute"}
ON_NODES = {"configure", "remove"}
"""The containers that run as root, because the files of a node are root's."""


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Object]]:
    """The objects of each set of values."""
    require(HELM)
    home = tmp_path_factory.mktemp("helm")
    return {name: render(home, values) for name, values in VALUES.items()}


def workloads(objects: list[Object]) -> Iterator[Object]:
    """The objects that make pods."""
    return (each for each in objects if "template" in each.get("spec", {}))


def containers(objects: list[Object]) -> Iterator[tuple[Object, Object]]:
    """Each container, and what is said of its pod."""
    for workload in workloads(objects):
        spec = pod_spec(workload)
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            yield container, spec


def test_lint(tmp_path: Path) -> None:
    """helm has nothing to say, whatever is switched on."""
    require(HELM)
    for values in VALUES.values():
        options = [f"--set-json={key}={json.dumps(value)}" for key, value in values.items()]
        assert "0 chart(s) failed" in helm("lint", "--strict", *options, str(CHART), home=tmp_path)


@pytest.mark.parametrize("version", ["1.25", "1.37"])
@pytest.mark.parametrize("name", VALUES)
def test_schemas(rendered: dict[str, list[Object]], name: str, version: str) -> None:
    """The API knows every field of every object, in the oldest version that the chart admits as well."""
    for each in rendered[name]:
        if each["kind"] not in WITHOUT_SCHEMA:
            kubernetes_validate.validate(each, version, strict=True)
    kinds = {each["kind"] for each in rendered["everything"]}
    assert kinds >= {*WITHOUT_SCHEMA, "Ingress", "NetworkPolicy", "PodDisruptionBudget", "StatefulSet"}


def test_kubectl(rendered: dict[str, list[Object]], tmp_path: Path) -> None:
    """kubectl reads every object."""
    require(KUBECTL)
    (tmp_path / "objects.yaml").write_text(yaml.safe_dump_all(rendered["everything"]))
    (tmp_path / "kustomization.yaml").write_text("resources: [objects.yaml]\nnamespace: mirrors\n")
    read = subprocess.run(  # noqa: S603
        [KUBECTL, "kustomize", str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env={"HOME": str(tmp_path)},
    )
    assert len(list(yaml.safe_load_all(read.stdout))) == len(rendered["everything"])


@pytest.mark.parametrize("name", VALUES)
def test_restricted(rendered: dict[str, list[Object]], name: str) -> None:
    """The mirror's pods satisfy the restricted Pod Security Standard; root on a node has no capability."""
    for container, spec in containers(rendered[name]):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert context["runAsNonRoot"] is (container["name"] not in ON_NODES)
        if container["name"] == "dockmirror":
            assert not spec.get("hostNetwork")
            assert all("hostPath" not in volume for volume in spec["volumes"])


@pytest.mark.parametrize("name", VALUES)
def test_resources(rendered: dict[str, list[Object]], name: str) -> None:
    """Each container requests some, without which a namespace with a ResourceQuota admits no pod."""
    assert [each["name"] for each, _ in containers(rendered[name]) if not each["resources"]["requests"]] == []


@pytest.mark.parametrize(("tag", "written"), [(20261201, "20261201"), ("1.10", "1.10"), ("", "0.0.0")])
def test_tag(tmp_path: Path, tag: object, written: str) -> None:
    """helm reads a number of a file of values as one with a fraction."""
    require(HELM)
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump({"image": {"tag": tag}}))
    objects = yaml.safe_load_all(helm("template", "m", str(CHART), f"--values={file}", home=tmp_path))
    [container] = pod_spec(of_kind([each for each in objects if each], "StatefulSet"))["containers"]
    assert container["image"] == f"ghcr.io/dockmirror/dockmirror:{written}"


def test_writable_places(rendered: dict[str, list[Object]]) -> None:
    """The mirror keeps all on its volume; on a node only the directory of hosts.toml can be written."""
    mirror = pod_spec(of_kind(rendered["defaults"], "StatefulSet"))["containers"][0]
    writable = [each["mountPath"] for each in mirror["volumeMounts"] if not each.get("readOnly")]
    assert writable == ["/var/cache/dockmirror", "/var/lib/dockmirror", "/tmp"]  # noqa: S108
    configure = pod_spec(of_kind(rendered["address"], "DaemonSet", "-nodes"))["containers"][0]
    writable = [each["mountPath"] for each in configure["volumeMounts"] if not each.get("readOnly")]
    assert writable == ["/tmp", "/node/etc/containerd/certs.d"]  # noqa: S108


def test_settings(rendered: dict[str, list[Object]], tmp_path: Path) -> None:
    """The mirror accepts the variables and the file that the chart gives it."""
    objects = rendered["everything"]
    file = tmp_path / "dockmirror.toml"
    file.write_text(of_kind(objects, "ConfigMap")["data"]["dockmirror.toml"])
    mirror = pod_spec(of_kind(objects, "StatefulSet"))["containers"][0]
    settings = load({}, {**variables(objects), "DOCKMIRROR_CONFIG": str(file)})
    assert settings.domain == "mirror.example.com"
    assert settings.listen == ("8080",)
    ports = {each["name"]: each["containerPort"] for each in mirror["ports"]}
    assert ports == {"http": 8080, "metrics": 9464}
    assert settings.operations == "9464"
    assert pod_spec(of_kind(objects, "StatefulSet"))["terminationGracePeriodSeconds"] > settings.grace


def test_the_pods_are_peers_by_the_names_of_their_service(rendered: dict[str, list[Object]]) -> None:
    """One pod has none; a policy that limits who may pull lets the pods do so."""
    workload = of_kind(rendered["everything"], "StatefulSet")
    name, service = workload["metadata"]["name"], workload["spec"]["serviceName"]
    assert of_kind(rendered["everything"], "Service", "-pods")["metadata"]["name"] == service
    peers = variables(rendered["everything"])["DOCKMIRROR_PEERS"].split(" ")
    assert peers == [f"http://{name}-{number}.{service}:8080" for number in range(3)]
    assert "DOCKMIRROR_PEERS" not in variables(rendered["defaults"])
    [http, _] = of_kind(rendered["everything"], "NetworkPolicy")["spec"]["ingress"]
    assert http["from"][0] == {"ipBlock": {"cidr": "10.0.0.0/8"}}
    labels = workload["spec"]["template"]["metadata"]["labels"].items()
    assert all(each["podSelector"]["matchLabels"].items() <= labels for each in http["from"][1:])
    assert len(http["from"]) == 2


def variables(objects: list[Object]) -> dict[str, str]:
    """The variables of the mirror's own container."""
    [mirror] = pod_spec(of_kind(objects, "StatefulSet"))["containers"]
    return {each["name"]: each["value"] for each in mirror["env"]}


def test_removal_is_a_hook(rendered: dict[str, list[Object]]) -> None:
    """Only uninstalling removes files: nothing runs when a pod stops, and the Job follows the DaemonSet."""
    objects = rendered["localhost"]
    hooks = [each for each in objects if "helm.sh/hook" in each["metadata"].get("annotations", {})]
    assert [each["kind"] for each in hooks if each["kind"] in ("DaemonSet", "Job")] == ["DaemonSet", "Job"]
    for each in hooks:
        assert each["metadata"]["annotations"]["helm.sh/hook"] == "post-delete"
        assert each["metadata"]["name"].endswith("-removal")
    weights = {each["kind"]: int(each["metadata"]["annotations"]["helm.sh/hook-weight"]) for each in hooks}
    assert weights["Role"] < weights["DaemonSet"] < weights["Job"]
    assert not any("lifecycle" in container for container, _ in containers(objects))
    [removing] = (each for each, _ in containers(objects) if "remove" in each.get("args", []))
    configure = pod_spec(of_kind(objects, "DaemonSet", "-nodes"))["containers"][0]
    for option in ("--owner", "--directory", "--root"):
        assert option_of(removing, option) == option_of(configure, option)


def option_of(container: Object, name: str) -> str:
    """The value of an option."""
    [found] = (each.partition("=")[2] for each in container["args"] if each.startswith(f"{name}="))
    return str(found)


def test_alerts(rendered: dict[str, list[Object]], tmp_path: Path) -> None:
    """promtool accepts the rules, and every metric in them exists."""
    require("promtool")
    rules = of_kind(rendered["everything"], "PrometheusRule")["spec"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))
    subprocess.run(["promtool", "check", "rules", str(tmp_path / "rules.yaml")], check=True)  # noqa: S603, S607
    metrics = {code(row[0]) for row in table("docs/reference/metrics.md", "metric")}
    asked = set(re.findall(r"dockmirror_\w+", " ".join(each["expr"] for each in rules["groups"][0]["rules"])))
    assert {each.removesuffix("_bucket") for each in asked} <= metrics


def test_monitoring_finds_the_pods(rendered: dict[str, list[Object]]) -> None:
    """The ServiceMonitor selects the Service with the metrics' port, and no other."""
    objects = rendered["everything"]
    wanted = of_kind(objects, "ServiceMonitor")["spec"]["selector"]["matchLabels"].items()
    services = [each for each in objects if each["kind"] == "Service"]
    [selected] = (each for each in services if wanted <= each["metadata"]["labels"].items())
    assert [port["name"] for port in selected["spec"]["ports"]] == ["metrics"]
    labels = of_kind(objects, "StatefulSet")["spec"]["template"]["metadata"]["labels"].items()
    assert all(each["spec"]["selector"].items() <= labels for each in services)


def test_version() -> None:
    """The release alone gives the chart a version."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    assert (chart["version"], chart["appVersion"]) == ("0.0.0", "0.0.0")
    project = tomllib.loads((CHART.parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
    assert chart["home"] == project["urls"]["Source"]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"nodes.mode": "dns"}, "nodes/mode"),
        ({"nodes.mode": "address"}, "nodes.url"),
        ({"node.enabled": True}, "'node'"),
        ({"persistence.class": "fast"}, "'class'"),
        ({"ingress.enabled": True}, "ingress.hosts is empty"),
        ({"gateway.enabled": True}, "gateway.parentRefs is empty"),
        ({"image.tag": 1.1}, "/image/tag"),
        ({"service.port": 0}, "/service/port"),
        ({"service.type": "Cluster"}, "/service/type"),
        ({"podLabels": {"a": 1}}, "/podLabels/a"),
        ({"nodes.nodeSelector": {"pool": 3}}, "/nodes/nodeSelector/pool"),
    ],
)
def test_values_that_cannot_work(values: dict[str, Any], named: str, tmp_path: Path) -> None:
    """helm says which value is wrong."""
    require(HELM)
    with pytest.raises(AssertionError) as refused:
        render(tmp_path, {**NODES, **values})
    assert named in str(refused.value)
