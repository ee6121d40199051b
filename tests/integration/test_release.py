"""The files of ``make release``, installed without the repository: by pipx, podman, Compose and helm."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tarfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from attrs import frozen

from ..conftest import Measured
from ..test_packaging import LEFT_OUT, answer
from .conftest import MakeDirectory, MakeMachine
from .parts.builder import PLATFORMS, ROOT, Builder, run
from .parts.helm import HELM, helm, of_kind, pod_spec, render
from .parts.machine import Machine
from .parts.process import CLEAN_ENVIRONMENT, free_port, wait_until
from .parts.programs import require
from .parts.registry import Registry

pytestmark = pytest.mark.integration

BIN = str(Path(sys.executable).parent)
IMAGE = "ghcr.io/dockmirror/dockmirror"
EXTRA = "import dockmirror.tls.acme_client, obstore"
MOST_BYTES, BASE_BYTES = 120_000_000, 50_000_000
"""The most that the image may have, compressed; and its base image, which the tests do not have."""
CONTAINERS = """[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


@frozen
class Release:
    """The files that ``make release`` has built."""

    directory: Path
    version: str
    builder: Builder

    def image(self, platform: str) -> Path:
        """The archive of a platform's image."""
        return self.directory / f"dockmirror-{self.version}-linux-{platform}.oci.tar"


@pytest.fixture(scope="module")
def release(directory: MakeDirectory) -> Release:
    """Built from the files as they are, with a base image of this machine's Python."""
    require("buildah", "skopeo", HELM)
    builder = Builder(directory("release"))
    builder.build_base()
    builder.download_wheels()
    out = builder.directory / "dist"
    environment = {
        **os.environ, "HOME": str(builder.directory), "BIN": BIN, "UNTAGGED": "1", "OUT": str(out),
        "PLATFORMS": " ".join(PLATFORMS),
        "BUILDAH": " ".join(builder.command), "BUILD": " ".join(builder.options),
    }  # fmt: skip
    run([str(ROOT / ".ci/release")], environment)
    [wheel] = out.glob("*.whl")
    return Release(out, wheel.name.split("-")[1], builder)


def test_files(release: Release) -> None:
    """There is everything, with its checksum and the notes of what is new."""
    version = release.version
    names = {
        f"dockmirror-{version}-py3-none-any.whl", f"dockmirror-{version}.tar.gz", f"dockmirror-{version}.tgz",
        *(f"dockmirror-{version}-linux-{platform}.oci.tar" for platform in PLATFORMS),
        "compose.yaml", "RELEASE_NOTES.md",
    }  # fmt: skip
    sums = (release.directory / "SHA256SUMS").read_text()
    assert set(re.findall(r"^[0-9a-f]{64} [ *](.*)$", sums, re.MULTILINE)) == names
    run(
        ["env", "-C", str(release.directory), "sha256sum", "--check", "--strict", "SHA256SUMS"],
        CLEAN_ENVIRONMENT,
    )
    assert f"## {version} " in (release.directory / "RELEASE_NOTES.md").read_text()
    assert {each.name for each in release.directory.iterdir()} == names | {"SHA256SUMS"}


@pytest.mark.parametrize("platform", PLATFORMS)
def test_image(release: Release, platform: str, measured: Measured) -> None:
    """It is small, runs as nobody in particular, keeps what it has in volumes, and is for its platform."""
    archive = f"oci-archive:{release.image(platform)}"
    config = json.loads(run(["skopeo", "inspect", "--config", archive], CLEAN_ENVIRONMENT))
    assert config["architecture"] == platform
    assert config["config"]["User"] == "10001:10001"
    assert sorted(config["config"]["Volumes"]) == ["/var/cache/dockmirror", "/var/lib/dockmirror"]
    assert list(config["config"]["ExposedPorts"]) == ["8080/tcp"]
    assert config["config"]["Labels"]["org.opencontainers.image.version"] == release.version
    manifest = json.loads(run(["skopeo", "inspect", "--raw", archive], CLEAN_ENVIRONMENT))
    added = sum(layer["size"] for layer in manifest["layers"][1:])
    measured(f"the image for {platform} adds {added / 1e6:.1f} MB, compressed, to its base image")
    assert added + BASE_BYTES < MOST_BYTES
    machines = {"amd64": b"\x3e\x00", "arm64": b"\xb7\x00"}
    assert set(machine_types(release.image(platform))) == {machines[platform]}


def machine_types(archive: Path) -> Iterator[bytes]:
    """The machine that each compiled module of the mirror is for, as its ELF header says."""
    with tarfile.open(archive) as blobs:
        for blob in filter(tarfile.TarInfo.isfile, blobs):
            opened = blobs.extractfile(blob)
            assert opened is not None
            if opened.read(2) == b"\x1f\x8b":
                opened.seek(0)
                with tarfile.open(fileobj=opened) as layer:
                    for file in layer:
                        if file.name.startswith("opt/dockmirror/") and file.name.endswith(".so"):
                            module = layer.extractfile(file)
                            assert module is not None
                            yield module.read(20)[18:]


@frozen
class Published:
    """A registry with the image and the chart of the release."""

    owner: str
    version: str
    digests: dict[str, str]

    @property
    def image(self) -> str:
        """The image's name there."""
        return f"{self.owner}/dockmirror:{self.version}"


@pytest.fixture(scope="module")
def published(release: Release, directory: MakeDirectory) -> Iterator[Published]:
    """The registry after ``.ci/publish``."""
    require("docker-registry")
    with Registry(directory("published")) as registry:
        owner = f"127.0.0.1:{registry.port}/dockmirror"
        environment = {
            **release.builder.environment, "BIN": BIN, "OUT": str(release.directory), "PLAIN": "1",
            "BUILDAH": " ".join(release.builder.command),
        }  # fmt: skip
        printed = run([str(ROOT / ".ci/publish"), owner], environment)
        yield Published(owner, release.version, dict(line.split() for line in printed.splitlines()))


@pytest.fixture(scope="module")
def machine(make_machine: MakeMachine, published: Published) -> Machine:
    """A machine with podman that has nothing of the repository, and has pulled the image."""
    machine = make_machine("podman", "podman-compose", "runc", "iptables", "curl", "ip")
    shutil.copytree("/etc/alternatives", machine.etc / "alternatives", symlinks=True)
    containers = machine.etc / "containers"
    (containers / "containers.conf").write_text(CONTAINERS)
    (containers / "registries.conf").write_text('[[registry]]\nlocation = "127.0.0.1"\ninsecure = true\n')
    podman(machine, "pull", "--quiet", published.image)
    return machine


def podman(machine: Machine, *arguments: str) -> str:
    """Run podman, and return its output; it must have ended well."""
    completed = machine.run("podman", *arguments)
    assert completed.returncode == 0, f"{arguments}\n{completed.stdout}\n{completed.stderr}"
    return completed.stdout


@contextmanager
def container(machine: Machine, image: str, port: int, *arguments: str) -> Iterator[str]:
    """A container in the background, which answers at a port."""
    options = ["--network=host", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
    volumes = ["--volume=cache:/var/cache/dockmirror", "--volume=state:/var/lib/dockmirror"]
    podman(machine, "run", "--detach", "--name=mirror", *options, *volumes, image, *arguments)
    try:
        wait_until(lambda: answer(port) is not None, "the container answers", 60)
        yield "mirror"
    finally:
        podman(machine, "rm", "--force", "mirror")


def test_published(published: Published, tmp_path: Path) -> None:
    """One name stands for the images of all platforms; the digests are those that the registry has."""
    reference = f"docker://{published.image}"
    listed = json.loads(
        run(["skopeo", "inspect", "--raw", "--tls-verify=false", reference], CLEAN_ENVIRONMENT)
    )
    assert {each["platform"]["architecture"] for each in listed["manifests"]} == set(PLATFORMS)
    by_digest = f"docker://{published.owner}/dockmirror@{published.digests['image']}"
    assert (
        json.loads(run(["skopeo", "inspect", "--raw", "--tls-verify=false", by_digest], CLEAN_ENVIRONMENT))
        == listed
    )
    assert published.digests["chart"].startswith("sha256:")


def test_container(published: Published, machine: Machine, measured: Measured) -> None:
    """The image runs without rights and with a read-only root, and stops when it is told to."""
    port = free_port()
    options = [f"--listen=tcp:{port}:interface=127.0.0.1", "--operations=none"]
    begun = time.monotonic()
    with container(machine, published.image, port, *options) as name:
        answered, passed = time.time(), time.monotonic() - begun
        program = int(podman(machine, "inspect", "--format={{.State.StartedAt.UnixNano}}", name)) / 1e9
        measured(
            f"the image answers {passed:.1f} s after podman run, {answered - program:.1f} s after it started"
        )
        assert answer(port) == b"{}"
        assert podman(machine, "exec", name, "/usr/bin/id", "-u") == "10001\n"
        places = podman(
            machine, "exec", name, "stat", "-c", "%u %a", "/var/cache/dockmirror", "/var/lib/dockmirror"
        )
        assert places == "10001 750\n" * 2
        podman(machine, "exec", name, "/opt/dockmirror/bin/python", "-c", EXTRA)
        podman(machine, "stop", "--time=60", name)
        assert podman(machine, "inspect", "--format={{.State.ExitCode}}", name) == "0\n"


def test_node_command_in_a_container(published: Published, machine: Machine) -> None:
    """As the first process of its container it ends when it is told to."""
    command = [
        "node",
        "configure",
        "--mirror=http://mirror",
        "--root=/tmp",
        "--every=600",
        "--ready-file=/tmp/ready",
    ]
    options = [
        "--network=none",
        "--user=0:0",
        "--cap-drop=ALL",
        "--entrypoint=/opt/dockmirror/bin/dockmirror",
    ]
    podman(machine, "run", "--detach", "--name=node", *options, published.image, *command)
    try:
        wait_until(lambda: "written" in podman(machine, "logs", "node"), "the files are written", 60)
        podman(machine, "stop", "--time=60", "node")
        assert podman(machine, "inspect", "--format={{.State.ExitCode}}", "node") == "0\n"
    finally:
        podman(machine, "rm", "--force", "node")


COMPOSE = """
ip link set lo up
podman-compose up --detach
trap 'podman-compose down' EXIT
curl --silent --fail --retry 60 --retry-delay 1 --retry-all-errors http://127.0.0.1:$DOCKMIRROR_PORT/v2/
podman healthcheck run $(podman ps --format '{{.Names}}')
podman inspect --format ' read-only: {{.HostConfig.ReadonlyRootfs}}' $(podman ps --format '{{.Names}}')
"""


def test_compose(release: Release, published: Published, machine: Machine) -> None:
    """The file starts the published image, which is healthy by the file's check, in a network of its own."""
    text = (release.directory / "compose.yaml").read_text()
    assert f"{IMAGE}:{release.version}" in text
    (machine.home / "compose.yaml").write_text(text)
    variables = {"DOCKMIRROR_IMAGE": published.image, "DOCKMIRROR_PORT": str(free_port())}
    apart = ["unshare", "--net", *machine.command("sh", "-euc", COMPOSE)]
    assert "{} read-only: true" in run(apart, {**machine.environment, **variables})


def test_chart(release: Release, published: Published, tmp_path: Path) -> None:
    """helm pulls the chart from the registry; it names the image of the same version."""
    place = f"oci://{published.owner}/charts/dockmirror"
    options = [f"--version={published.version}", "--plain-http", f"--destination={tmp_path}"]
    helm("pull", place, *options, home=tmp_path)
    chart = tmp_path / f"dockmirror-{published.version}.tgz"
    assert chart.read_bytes() == (release.directory / chart.name).read_bytes()
    [mirror] = pod_spec(of_kind(render(tmp_path, chart=chart), "StatefulSet"))["containers"]
    assert mirror["image"] == f"{IMAGE}:{published.version}"


def test_a_release_is_built_from_its_tag(tmp_path: Path) -> None:
    """Only the tag of the version is built, without any other file; else an earlier release stays."""
    require("git")
    tree, out = tmp_path / "tree", tmp_path / "out"
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*LEFT_OUT))
    out.mkdir()
    (out / "kept").touch()
    identity = {f"GIT_{role}_{key}": "a" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
    environment = {
        **os.environ,
        **identity,
        "HOME": str(tmp_path),
        "BIN": BIN,
        "OUT": str(out),
        "PLATFORMS": "",
    }
    for arguments in (("init", "--quiet"), ("add", "."), ("commit", "--quiet", "--message=one")):
        run(["git", "-C", str(tree), *arguments], environment)
    with pytest.raises(AssertionError, match="is not the tag v"):
        run([str(tree / ".ci/release")], environment)
    assert [each.name for each in out.iterdir()] == ["kept"]
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    run(["git", "-C", str(tree), "tag", f"v{version}"], environment)
    (tree / "docs/untracked.md").touch()
    run([str(tree / ".ci/release")], environment)
    with tarfile.open(out / f"dockmirror-{version}.tar.gz") as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert "docs/how-to/kubernetes.md" in names
    assert "docs/untracked.md" not in names


def test_what_is_copied() -> None:
    """All that the image is built from is there, and what is ignored is no part of it."""
    lines = (ROOT / "Containerfile").read_text("utf-8").splitlines()
    copied = [line.split()[1:-1] for line in lines if line.startswith("COPY ") and "--from=" not in line]
    sources = {source for each in copied for source in each}
    ignored = (ROOT / ".containerignore").read_text("utf-8").splitlines()
    assert sources == {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert all((ROOT / source).exists() for source in sources)
