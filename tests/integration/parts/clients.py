"""The clients that people use, each run on a :class:`~.machine.Machine` of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from .accounts import Account
from .machine import Machine
from .process import Process

Completed = subprocess.CompletedProcess[str]


def skopeo(machine: Machine, *arguments: str) -> Completed:
    """Run skopeo."""
    return machine.run("skopeo", *arguments)


def podman(machine: Machine, *arguments: str) -> Completed:
    """Run podman."""
    return machine.run("podman", *arguments)


def buildah(machine: Machine, *arguments: str) -> Completed:
    """Run buildah; chroot isolation needs no runtime."""
    return machine.run("buildah", *arguments)


def curl(machine: Machine, *arguments: str) -> Completed:
    """Run curl, which prints the body and fails only where there is no HTTP answer."""
    return machine.run("curl", "--silent", "--show-error", *arguments)


class Dockerd(Process):
    """A Docker daemon with its data, socket and settings on a machine of its own."""

    def __init__(self, machine: Machine, mirrors: tuple[str, ...] = (), options: Sequence[str] = ()) -> None:
        self.machine = machine
        self._socket = machine.run_directory / "docker.sock"
        super().__init__(
            machine.daemon(
                "dockerd",
                f"--data-root={machine.directory}/docker",
                "--iptables=false",
                "--bridge=none",
                *(f"--registry-mirror={url}" for url in mirrors),
                *options,
            ),
            log=machine.directory / "dockerd.log",
            ready=lambda: self._socket.exists() and self.docker("version").returncode == 0,
            environment=machine.environment,
        )

    def docker(self, *arguments: str) -> Completed:
        """Run the docker client against this daemon."""
        return self.machine.run("docker", *arguments)

    def reload(self) -> None:
        """Have the daemon read its settings again, as ``systemctl reload docker`` does."""
        os.kill(self.daemon_pid(), signal.SIGHUP)

    def daemon_pid(self) -> int:
        """Return the number of the daemon itself, which its own machine knows by another."""
        for name in Path("/proc").glob("[0-9]*/comm"):
            process = int(name.parent.name)
            with contextlib.suppress(OSError):
                if name.read_text() == "dockerd\n" and os.getpgid(process) == self.pid:
                    return process
        raise ProcessLookupError("dockerd does not run")

    def build(self, directory: Path, name: str) -> Completed:
        """Have the BuildKit within dockerd build the Dockerfile of a directory."""
        build = ("docker", "build", "--progress=plain", "--no-cache", "--tag", name, str(directory))
        return self.machine.run("env", "DOCKER_BUILDKIT=1", *build)

    def login(self, registry: str, account: Account) -> Completed:
        """Log in to *registry*; the daemon asks whether the password is right."""
        return self.docker("login", "-u", account.name, "-p", account.password, registry)


WITHOUT_CRI = 'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'


class Containerd(Process):
    """A containerd with its content, socket and state on a machine of its own.

    :param configuration: what its file has besides.
    """

    def __init__(self, machine: Machine, configuration: str = WITHOUT_CRI) -> None:
        self.machine = machine
        places = f'root = "{machine.directory}/containerd"\nstate = "/run/containerd"\n'
        (machine.etc / "containerd.toml").write_text(f"version = 2\n{places}{configuration}")
        super().__init__(
            machine.daemon("containerd", "--config=/etc/containerd.toml"),
            log=machine.directory / "containerd.log",
            ready=lambda: self.ctr("version").returncode == 0,
            environment=machine.environment,
        )

    def ctr(self, *arguments: str) -> Completed:
        """Run containerd's own client."""
        return self.machine.run("ctr", *arguments)

    def content(self, digest: str) -> bytes:
        """The bytes that containerd stored under *digest*."""
        algorithm, _, hexadecimal = digest.partition(":")
        store = self.machine.directory / "containerd/io.containerd.content.v1.content/blobs"
        return (store / algorithm / hexadecimal).read_bytes()

    def hosts(self, registry: str, toml: str) -> str:
        """Write the ``hosts.toml`` of *registry*, and return the directory for ``--hosts-dir``."""
        directory = self.machine.etc / "containerd/certs.d"
        (directory / registry).mkdir(parents=True, exist_ok=True)
        (directory / registry / "hosts.toml").write_text(toml)
        return "/etc/containerd/certs.d"


def layout_bytes(directory: Path, digest: str) -> bytes:
    """The bytes that ``skopeo copy --all … oci:DIRECTORY`` stored under *digest*."""
    return (directory / "blobs" / digest.replace(":", "/")).read_bytes()
