"""A mirror that asks no registry, and the programs that people pull with."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from .conftest import MakeChain, MakeDirectory, MakeMachine
from .parts.chain import Chain
from .parts.clients import Containerd, Dockerd, skopeo
from .parts.command import dockmirror
from .parts.helm import HELM
from .parts.images import Image, artifact, image, index, referrers
from .parts.kept import holds
from .parts.machine import Machine
from .parts.mirror import Mirror
from .parts.process import wait_until
from .parts.programs import require
from .parts.registry import Registry
from .pulls import ctr_pulls, docker_pulls, podman_pulls, refused, skopeo_pulls, skopeo_reads, succeeded

pytestmark = pytest.mark.integration

PLACE = "docker.io/library/packed"
PULLED = image("offline")


@pytest.fixture
def pulled(chains: MakeChain, make_machine: MakeMachine) -> Iterator[Chain]:
    """A mirror with an image of a public registry, which still answers."""
    with chains() as chain:
        chain.registry.push("library/packed", PULLED, "1")
        skopeo_pulls(make_machine("skopeo"), f"{chain.mirror.host('docker')}/packed:1", PULLED)
        wait_until(lambda: holds(chain.mirror.cache, PLACE, PULLED), "all of it is held")
        yield chain


def test_nothing_is_asked(pulled: Chain, make_machine: MakeMachine) -> None:
    """The image is pulled, what is not held is a 404, and the log and the commands say why."""
    mirror = pulled.mirror
    mirror.stop()
    mirror.configure(offline=True)
    pulled.registry.push("library/packed", image("later"), "2")
    mirror.start()
    asked = len(pulled.asked())
    skopeo_pulls(make_machine("skopeo"), f"{mirror.host('docker')}/packed:1", PULLED)
    for host, name in (("docker", "library/packed"), ("", PLACE)):
        client = mirror.client(host)
        assert json.loads(client.request("GET", f"/v2/{name}/tags/list").body)["tags"] == ["1"]
        missed = client.request("GET", f"/v2/{name}/manifests/2")
        assert missed.status == 404
        [error] = json.loads(missed.body)["errors"]
        assert error["code"] == "MANIFEST_UNKNOWN"
        assert "the mirror is offline" in error["message"]
    catalog = mirror.client("docker").request("GET", "/v2/_catalog")
    assert json.loads(catalog.body) == {"repositories": ["library/packed"]}
    assert len(pulled.asked()) == asked
    assert "; offline: no registry is asked" in mirror.read_log()
    checked = succeeded(dockmirror(mirror, "check", "docker"))
    assert "not asked: 'offline' is set" in checked
    assert "docker" in json.loads(succeeded(dockmirror(mirror, "config", "--check", "--json")))["offline"]
    assert len(pulled.asked()) == asked


IMAGES = {"image": image("carried"), "index": index("carried")}
NOTES = artifact("carried", IMAGES["image"])
CHART = "apiVersion: v2\nname: shop\nversion: 1.2.3\n"


@pytest.fixture(scope="module")
def chart(make_machine: MakeMachine) -> Path:
    """A Helm chart as helm packs it."""
    require(HELM)
    machine = make_machine()
    (machine.home / "shop").mkdir()
    (machine.home / "shop/Chart.yaml").write_text(CHART)
    succeeded(machine.run(HELM, "package", "shop"))
    return machine.home / "shop-1.2.3.tgz"


@pytest.fixture(scope="module")
def archive(directory: MakeDirectory, make_machine: MakeMachine, chart: Path) -> Path:
    """Everything that a mirror with a network holds, in one compressed file; the registry is stopped."""
    require("docker-registry", "zstd")
    file = directory("carried") / "all.tar"
    with ExitStack() as stack:
        registry = stack.enter_context(Registry(directory("outside-registry")))
        upstreams = {
            "docker": {"url": registry.url},
            "charts": {"url": registry.url, "registry": "charts.test"},
        }
        outside = stack.enter_context(Mirror(directory("outside"), make_machine(), upstreams))
        for tag, pushed in IMAGES.items():
            registry.push("library/packed", pushed, tag)
        registry.push("library/packed", NOTES, "notes")
        tag, listed = referrers(IMAGES["image"], NOTES)
        registry.push("library/packed", listed, tag)
        helm = (HELM, "push", str(chart), f"oci://{registry.netloc}/team", "--plain-http")
        succeeded(make_machine().run(*helm))
        names = [f"packed:{each}" for each in (*IMAGES, "notes", tag)]
        succeeded(dockmirror(outside, "warm", *names, "charts.test/team/shop:1.2.3"))
        succeeded(dockmirror(outside, "export", "--all", "-o", str(file)))
    subprocess.run(["zstd", "-q", str(file)], check=True)  # noqa: S603, S607
    return file.with_name("all.tar.zst")


@pytest.fixture(scope="module")
def site(directory: MakeDirectory, make_machine: MakeMachine, archive: Path) -> Iterator[Mirror]:
    """A mirror with another cache and two offline upstreams, that gives out only what was imported."""
    nowhere = {"url": "http://127.0.0.1:9", "public": False, "offline": True}
    upstreams = {"docker": nowhere, "charts": {**nowhere, "registry": "charts.test"}}
    with Mirror(directory("site"), make_machine(), upstreams) as mirror:
        printed = succeeded(dockmirror(mirror, "import", str(archive)))
        assert len(printed.splitlines()) == 5
        yield mirror
    assert mirror.failures() == ""


def own(mirror: Mirror, tag: str) -> str:
    """Return the name of an image on the mirror's own host."""
    return f"127.0.0.1:{mirror.port}/{PLACE}:{tag}"


@pytest.mark.parametrize("tag", IMAGES)
def test_skopeo_copies_and_inspects(site: Mirror, skopeo_machine: Machine, tag: str) -> None:
    """By the virtual host and by the own one; the index has all of its platforms."""
    for name in (own(site, tag), f"{site.host('docker')}/packed:{tag}"):
        skopeo_reads(skopeo_machine, name, IMAGES[tag])
        skopeo_pulls(skopeo_machine, name, IMAGES[tag])
        inspected = succeeded(skopeo(skopeo_machine, "inspect", "--tls-verify=false", f"docker://{name}"))
        assert tag in json.loads(inspected)["RepoTags"]


def test_skopeo_lists_and_syncs(site: Mirror, skopeo_machine: Machine) -> None:
    """All tags of the repository, without the name of one."""
    place = f"{site.host('docker')}/library/packed"
    listed = succeeded(skopeo(skopeo_machine, "list-tags", "--tls-verify=false", f"docker://{place}"))
    tag, _ = referrers(IMAGES["image"], NOTES)
    assert set(json.loads(listed)["Tags"]) == {*IMAGES, "notes", tag}
    target = skopeo_machine.home / "synced"
    options = ("--src=docker", "--dest=dir", "--src-tls-verify=false", "--all")
    succeeded(skopeo(skopeo_machine, "sync", *options, place, str(target)))
    for name, pushed in {**IMAGES, "notes": NOTES}.items():
        assert (target / f"packed:{name}/manifest.json").read_bytes() == pushed.manifest.data


def test_dockerd(site: Mirror, dockerd: Dockerd) -> None:
    for tag, pushed in IMAGES.items():
        docker_pulls(dockerd, own(site, tag), pushed)
    refused(dockerd.docker("pull", own(site, "absent")), "the mirror is offline")


def test_containerd(site: Mirror, containerd: Containerd) -> None:
    for tag, pushed in IMAGES.items():
        ctr_pulls(containerd, own(site, tag), pushed, "--plain-http")


def test_podman(site: Mirror, podman_machine: Machine) -> None:
    for tag, pushed in IMAGES.items():
        podman_pulls(podman_machine, own(site, tag), pushed)


def test_helm(site: Mirror, make_machine: MakeMachine, chart: Path) -> None:
    machine = make_machine()
    place = f"oci://{site.host()}/charts.test/team/shop"
    succeeded(machine.run(HELM, "pull", place, "--version=1.2.3", "--plain-http"))
    assert (machine.home / chart.name).read_bytes() == chart.read_bytes()


def test_referrers(site: Mirror) -> None:
    """The API lists what the registry had under a tag only."""
    subject: Image = IMAGES["image"]
    answer = site.client("docker").request("GET", f"/v2/library/packed/referrers/{subject.digest}")
    assert [each["digest"] for each in json.loads(answer.body)["manifests"]] == [NOTES.digest]
