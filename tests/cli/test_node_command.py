"""Tests of ``dockmirror node``."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import Result

from dockmirror.cli.node_command import is_ready_everywhere

from .shop import run

MIRROR = "--mirror=http://10.43.0.7:8080"
DIRECTORY = "etc/containerd/certs.d"
READING = '[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = "/etc/containerd/certs.d"\n'
RUNTIME = (
    '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.a]\nruntime_type = "io.containerd.runc.v2"\n'
)
RUN = "from dockmirror.cli.main import run; run()"
OWN_UPSTREAM = '[upstreams.own]\nurl = "https://registry.example.com"\n'


def configure(root: Path, *arguments: str, code: int = 0, settings: Path | str = os.devnull) -> Result:
    """Write the files once for the node whose files lie below *root*."""
    return run("-c", str(settings), "node", "configure", f"--root={root}", MIRROR, *arguments, code=code)


def remove(root: Path, *arguments: str) -> Result:
    """Remove the files from that node."""
    return run("node", "remove", f"--root={root}", *arguments)


def files(root: Path) -> dict[str, str]:
    """The text of each file below containerd's directory, by its path there."""
    directory = root / DIRECTORY
    return {
        str(path.relative_to(directory)): path.read_text()
        for path in directory.rglob("*.*")
        if path.is_file()
    }


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """The root of a node whose containerd reads the directory."""
    write(tmp_path / "etc/containerd/config.toml", READING)
    return tmp_path


def write(file: Path, text: str) -> None:
    """Write a file and the directories above it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_the_files_are_those_of_the_client_command(node: Path, tmp_path: Path) -> None:
    """Below the mark stands what ``dockmirror client containerd`` writes, the way out included."""
    configure(node)
    other = tmp_path / "other"
    run("client", MIRROR, "--write", f"--root={other}", "containerd")
    for name, text in files(other).items():
        assert files(node)[name].splitlines()[2:] == text.splitlines()[1:]
    hosts = tomllib.loads(files(node)["ghcr.io/hosts.toml"])
    assert hosts["server"] == "https://ghcr.io"
    assert list(hosts["host"]) == ["http://10.43.0.7:8080"]
    assert (node / DIRECTORY / "ghcr.io/hosts.toml").stat().st_mode & 0o777 == 0o644
    assert configure(node).stdout == ""


def test_json_has_an_object_for_each_line(node: Path) -> None:
    file = str(node / DIRECTORY / "quay.io/hosts.toml")
    written = [json.loads(line) for line in configure(node, "--json").stdout.splitlines()]
    assert {"subject": file, "message": "written"} in written
    removed = [json.loads(line) for line in remove(node, "--json").stdout.splitlines()]
    assert {"subject": file, "message": "removed"} in removed


def test_only_own_files_are_touched(node: Path) -> None:
    """A file that something else wrote stays and is reported; the others are written."""
    foreign = {"ghcr.io/hosts.toml": "server = 'https://ghcr.io'\n", "docker.io/ca.crt": "certificate"}
    for name, text in foreign.items():
        write(node / DIRECTORY / name, text)
    result = configure(node, code=1)
    assert "ghcr.io/hosts.toml: left as it is, because something else wrote it" in result.stdout
    assert "quay.io/hosts.toml" in files(node)
    remove(node)
    assert files(node) == foreign
    assert [each.name for each in sorted((node / DIRECTORY).iterdir())] == ["docker.io", "ghcr.io"]


def test_links_out_of_the_root_are_not_followed(node: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """An absolute link means a file of the node, and not one of the container that the command runs in."""
    configure(node)
    outside = tmp_path_factory.mktemp("container")
    own = files(node)["ghcr.io/hosts.toml"]
    write(outside / "former.example/hosts.toml", own)
    (node / DIRECTORY / "former.example").symlink_to(outside / "former.example")
    (node / DIRECTORY / "ghcr.io/hosts.toml").unlink()
    (node / DIRECTORY / "ghcr.io/hosts.toml").symlink_to(outside / "hosts.toml")
    refused = f"ghcr.io/hosts.toml: cannot be written: a link leads out of {node}"
    assert refused in configure(node, code=1).stdout
    remove(node)
    assert (outside / "former.example/hosts.toml").read_text() == own
    assert not (outside / "hosts.toml").exists()


def test_links_of_directory_and_configuration_out_of_the_root_are_refused(
    node: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("container")
    (node / DIRECTORY).symlink_to(outside)
    assert f"a link leads out of {node}" in configure(node, code=1).stderr
    assert list(outside.iterdir()) == []
    (node / "etc/containerd/config.toml").rename(outside / "config.toml")
    (node / "etc/containerd/config.toml").symlink_to(outside / "config.toml")
    (node / DIRECTORY).unlink()
    assert f"cannot be read: a link leads out of {node}" in configure(node).stdout


def test_each_owner_has_its_own_files(node: Path) -> None:
    """Two releases on one cluster do not overwrite or remove each other's files."""
    configure(node, "--owner=one")
    before = files(node)
    configure(node, "--owner=two", code=1)
    assert remove(node, "--owner=two").stdout == ""
    assert files(node) == before
    remove(node, "--owner=one")
    assert files(node) == {}
    configure(node, "--owner=", code=2)


def test_a_registry_that_is_no_longer_mirrored_is_removed(node: Path, tmp_path: Path) -> None:
    settings = tmp_path / "dockmirror.toml"
    settings.write_text(OWN_UPSTREAM)
    configure(node, settings=settings)
    assert "registry.example.com/hosts.toml" in files(node)
    settings.write_text("")
    result = configure(node, settings=settings)
    assert "registry.example.com/hosts.toml: removed" in result.stdout
    assert "registry.example.com/hosts.toml" not in files(node)
    assert "quay.io/hosts.toml" in files(node)


@pytest.mark.parametrize("host", ["10.43.0.7:8080", "[fd00::7]:8080"])
def test_the_address_of_a_service(tmp_path: Path, host: str) -> None:
    """In the form of Kubernetes' variables."""
    configure(tmp_path, f"--mirror=tcp://{host}", code=0)
    written = (tmp_path / "etc/containerd/certs.d/docker.io/hosts.toml").read_text()
    assert f'[host."http://{host}"]' in written


@pytest.mark.parametrize(
    ("configuration", "words", "status"),
    [
        ("version = 2\n", "containerd does not read /etc/containerd/certs.d", 1),
        ("version = 3\n", "containerd may not read /etc/containerd/certs.d", 0),
        ("version", "cannot be read: Expected '='", 0),
        (None, "cannot be read: No such file or directory; containerd may not read", 0),
        ('imports = ["/etc/containerd/conf.d/*.toml"]\n', "", 0),
        ('imports = ["conf.d/*.toml"]\n', "", 0),
        (f'imports = ["runtime.toml"]\n{READING}', "each imported file", 1),
    ],
)
def test_containerd_that_does_not_read_the_files(
    tmp_path: Path, configuration: str | None, words: str, status: int
) -> None:
    """The report says which lines containerd's own file needs; the pod is ready unless that is certain."""
    write(tmp_path / "etc/containerd/conf.d/registry.toml", READING)
    write(tmp_path / "etc/containerd/runtime.toml", RUNTIME)
    if configuration is not None:
        write(tmp_path / "etc/containerd/config.toml", configuration)
    ready = tmp_path / "ready"
    ready.touch()
    result = configure(tmp_path, f"--ready-file={ready}", code=status)
    assert words in result.stdout
    assert ready.exists() == (status == 0)
    assert ('config_path = "/etc/containerd/certs.d"' in result.stdout) == bool(words)
    assert "docker.io/hosts.toml" in files(tmp_path)


def test_another_directory(tmp_path: Path) -> None:
    """The directory and the configuration may lie elsewhere, as they do with k3s."""
    place = "/var/lib/rancher/k3s/agent/etc/containerd"
    write(tmp_path / place[1:] / "config.toml", READING.replace("/etc/containerd", place))
    places = [f"--directory={place}/certs.d/", f"--containerd-config={place}/config.toml"]
    configure(tmp_path, *places)
    assert (tmp_path / place[1:] / "certs.d/docker.io/hosts.toml").exists()
    remove(tmp_path, places[0])
    assert not (tmp_path / place[1:] / "certs.d/docker.io").exists()


def test_what_cannot_be_written_or_removed_is_reported(node: Path) -> None:
    write(node / DIRECTORY / "quay.io", "a file where a directory is expected")
    result = configure(node, code=1)
    assert "quay.io/hosts.toml: cannot be written: " in result.stdout
    assert "ghcr.io/hosts.toml" in files(node)
    write(node / "etc/blocked", "")
    configure(node, "--directory=/etc/blocked", code=1)
    remove(node, "--directory=/etc/none")


def test_a_removal_that_is_stopped_has_failed(node: Path) -> None:
    """The pod of the hook does not count as done when it is stopped while it waits."""
    configure(node)
    descriptor = os.open(node / DIRECTORY, os.O_RDONLY)
    command = [sys.executable, "-c", RUN, "node", "remove", f"--root={node}"]
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as removing:  # noqa: S603
            assert removing.stdout is not None
            assert "waiting for the process" in removing.stdout.readline()
            removing.terminate()
            assert removing.wait(60) == 143
    finally:
        os.close(descriptor)
    assert "quay.io/hosts.toml" in files(node)


def test_one_process_at_a_time_keeps_the_directory(node: Path) -> None:
    (node / DIRECTORY).mkdir()
    descriptor = os.open(node / DIRECTORY, os.O_RDONLY)
    try:
        configure(node)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("generation", "status", "is_ready"),
    [
        (1, {}, False),
        (1, {"observedGeneration": 1, "desiredNumberScheduled": 3, "numberReady": 2}, False),
        (1, {"observedGeneration": 1, "desiredNumberScheduled": 3, "numberReady": 3}, True),
        (2, {"observedGeneration": 1, "desiredNumberScheduled": 3, "numberReady": 3}, False),
        (1, {"observedGeneration": 1, "desiredNumberScheduled": 0}, True),
    ],
)
def test_ready_on_all_nodes(generation: int, status: dict[str, int], is_ready: bool) -> None:
    """The status counts once the controller has seen the present generation."""
    assert is_ready_everywhere({"metadata": {"generation": generation}, "status": status}) is is_ready
