"""Each client's way to push an image that it has from a file."""

from __future__ import annotations

import shutil
from pathlib import Path

from .parts.accounts import Account
from .parts.clients import Containerd, Dockerd, buildah, podman, skopeo
from .parts.images import Image
from .parts.machine import Machine
from .parts.packed import as_archive, as_directory
from .pulls import credentials, succeeded


def skopeo_pushes(machine: Machine, reference: str, image: Image, account: Account | None = None) -> None:
    """Push all architectures, byte for byte."""
    source = as_directory(image, machine.home / "pushed")
    skopeo_copies(machine, source, reference, account)
    shutil.rmtree(source)


def skopeo_copies(machine: Machine, source: Path, reference: str, account: Account | None = None) -> None:
    """The image that lies in a directory."""
    options = ["--all", "--dest-tls-verify=false", *credentials(account, "--dest-creds")]
    succeeded(skopeo(machine, "copy", *options, f"dir:{source}", f"docker://{reference}"))


def podman_pushes(machine: Machine, reference: str, image: Image, account: Account | None, kind: str) -> None:
    """An image of one architecture; podman compresses its layers anew, and forgets it afterwards.

    :param kind: as what it is pushed, ``oci`` or ``v2s2``.
    """
    source = as_directory(image, machine.home / "pushed")
    name = succeeded(podman(machine, "pull", f"dir:{source}")).strip()
    options = [f"--format={kind}", "--tls-verify=false", *credentials(account)]
    succeeded(podman(machine, "push", *options, name, reference))
    succeeded(podman(machine, "rmi", "--all", "--force"))
    shutil.rmtree(source)


def podman_pushes_index(machine: Machine, reference: str, image: Image, account: Account | None) -> None:
    """A list of what it has of each architecture."""
    succeeded(podman(machine, "manifest", "create", "list"))
    for number, child in enumerate(image.children):
        source = as_directory(child, machine.home / f"pushed-{number}")
        succeeded(podman(machine, "manifest", "add", "list", f"dir:{source}"))
    options = ["--all", "--tls-verify=false", *credentials(account)]
    succeeded(podman(machine, "manifest", "push", *options, "list", f"docker://{reference}"))
    succeeded(podman(machine, "manifest", "rm", "list"))


def buildah_pushes(machine: Machine, reference: str, files: Path, account: Account | None, kind: str) -> None:
    """An image that it builds of these files, with one layer.

    :param kind: as what it is pushed, ``oci`` or ``v2s2``.
    """
    name = succeeded(buildah(machine, "from", "scratch")).strip()
    succeeded(buildah(machine, "add", "--quiet", name, str(files), "/data"))
    succeeded(buildah(machine, "commit", "--quiet", name, "built"))
    options = [f"--format={kind}", "--tls-verify=false", *credentials(account)]
    succeeded(buildah(machine, "push", *options, "built", f"docker://{reference}"))
    succeeded(buildah(machine, "rm", "--all"))
    succeeded(buildah(machine, "rmi", "--all", "--force"))


def docker_pushes(daemon: Dockerd, reference: str, image: Image, account: Account | None = None) -> None:
    """An image that was loaded, and is forgotten afterwards."""
    registry = reference.partition("/")[0]
    docker_loads(daemon, reference, image)
    if account:
        succeeded(daemon.login(registry, account))
    try:
        succeeded(daemon.docker("push", reference))
    finally:
        if account:
            succeeded(daemon.docker("logout", registry))
        succeeded(daemon.docker("image", "rm", reference))


def docker_loads(daemon: Dockerd, reference: str, image: Image) -> None:
    """Load an image into the daemon."""
    machine = daemon.machine
    source, archive = as_directory(image, machine.home / "pushed"), machine.home / "pushed.tar"
    succeeded(skopeo(machine, "copy", f"dir:{source}", f"docker-archive:{archive}:{reference}"))
    succeeded(daemon.docker("load", "--input", str(archive)))
    shutil.rmtree(source)
    archive.unlink()


def ctr_pushes(daemon: Containerd, reference: str, image: Image, account: Account | None = None) -> None:
    """Import all of an image, push it byte for byte, and delete it."""
    archive = as_archive(image, reference, daemon.machine.home / "pushed.tar")
    succeeded(daemon.ctr("images", "import", "--all-platforms", str(archive)))
    login = [f"--user={account.name}:{account.password}"] if account else []
    succeeded(daemon.ctr("images", "push", "--plain-http", *login, reference))
    succeeded(daemon.ctr("images", "rm", "--sync", reference))
    archive.unlink()
