"""Each client's way to pull an image, with the proof that every byte is what was pushed."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from pathlib import Path

from .parts.accounts import Account
from .parts.clients import Containerd, Dockerd, buildah, podman, skopeo
from .parts.images import Image
from .parts.machine import Machine
from .parts.media import sha256


def succeeded(completed: subprocess.CompletedProcess[str]) -> str:
    """The output of a command, which must have ended well."""
    assert completed.returncode == 0, f"{completed.args[-6:]}\n{completed.stdout}\n{completed.stderr}"
    return completed.stdout


def refused(completed: subprocess.CompletedProcess[str], *words: str) -> None:
    """The command must have failed, and have said one of *words*."""
    said = completed.stdout + completed.stderr
    assert completed.returncode != 0, f"{completed.args[-6:]}\n{said}"
    assert any(word in said for word in words), said


def credentials(account: Account | None, option: str = "--creds") -> list[str]:
    """The option with which a client names an account."""
    return [f"{option}={account.name}:{account.password}"] if account else []


def skopeo_pulls(
    machine: Machine, reference: str, image: Image, account: Account | None = None, verified: bool = False
) -> None:
    """Copy all architectures with skopeo, and compare the manifests and blobs as they were stored."""
    target = machine.home / "copied"
    options = ["--all", f"--src-tls-verify={'true' if verified else 'false'}"]
    options += credentials(account, "--src-creds")
    succeeded(skopeo(machine, "copy", *options, f"docker://{reference}", f"dir:{target}"))
    assert (target / "manifest.json").read_bytes() == image.manifest.data
    for child in image.children:
        assert (target / f"{_hex(child.digest)}.manifest.json").read_bytes() == child.manifest.data
    for blob in (blob for each in (image, *image.children) for blob in each.blobs):
        assert (target / _hex(blob.digest)).read_bytes() == blob.data
    shutil.rmtree(target)


def skopeo_reads(machine: Machine, reference: str, image: Image, account: Account | None = None) -> None:
    """Read a manifest with skopeo, byte for byte."""
    options = ["--raw", "--tls-verify=false", *credentials(account)]
    raw = succeeded(skopeo(machine, "inspect", *options, f"docker://{reference}"))
    assert raw.encode() == image.manifest.data


def podman_pulls(
    machine: Machine, reference: str, image: Image, account: Account | None = None, verified: bool = False
) -> None:
    """Pull with podman, and compare identity, digest and the files in the mounted image."""
    verify = f"--tls-verify={'true' if verified else 'false'}"
    succeeded(podman(machine, "pull", *credentials(account), verify, reference))
    [inspected] = json.loads(succeeded(podman(machine, "image", "inspect", reference)))
    native = _native(image)
    assert native.config is not None
    assert inspected["Id"] == _hex(native.config.digest)
    assert {image.digest, native.digest} & set(_digests(inspected["RepoDigests"]))
    assert inspected["RootFS"]["Layers"] == json.loads(native.config.data)["rootfs"]["diff_ids"]
    mounted = succeeded(machine.run("sh", "-ec", _SUMS, "sh", f"podman image mount {reference}"))
    assert _summed(mounted) == set(native.files)


def buildah_pulls(machine: Machine, reference: str, image: Image, account: Account | None = None) -> None:
    """Make a container from the image with buildah, and compare the files in it."""
    name = succeeded(buildah(machine, "from", *credentials(account), "--tls-verify=false", reference)).strip()
    mounted = succeeded(machine.run("sh", "-ec", _SUMS, "sh", f"buildah mount {name}"))
    assert _summed(mounted) == set(_native(image).files)


def docker_pulls(daemon: Dockerd, reference: str, image: Image, account: Account | None = None) -> None:
    """Pull with dockerd, logged in as *account*, and compare digests and the files of the saved image."""
    registry = reference.partition("/")[0]
    if account:
        succeeded(daemon.login(registry, account))
    try:
        succeeded(daemon.docker("pull", reference))
    finally:
        if account:
            succeeded(daemon.docker("logout", registry))
    [inspected] = json.loads(succeeded(daemon.docker("image", "inspect", reference)))
    native = _native(image)
    assert native.config is not None
    assert inspected["Id"] == native.config.digest
    assert image.digest in _digests(inspected["RepoDigests"])
    assert inspected["RootFS"]["Layers"] == json.loads(native.config.data)["rootfs"]["diff_ids"]
    saved = daemon.machine.home / "saved.tar"
    succeeded(daemon.docker("save", "--output", str(saved), reference))
    assert _layer_digests(saved) == set(inspected["RootFS"]["Layers"])


def ctr_pulls(daemon: Containerd, reference: str, image: Image, *options: str) -> None:
    """Pull and unpack with containerd, and compare its content byte for byte."""
    succeeded(daemon.ctr("images", "pull", *options, reference))
    native = _native(image)
    for content in (image.manifest, native.manifest, *native.blobs):
        assert daemon.content(content.digest) == content.data


#: Prints the digest and name of each file under the directory that a command mounts.
_SUMS = 'cd "$($1)"; sha256sum data/*'


def _native(image: Image) -> Image:
    return image.children[0] if image.children else image


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")


def _digests(names: list[str]) -> list[str]:
    return [name.partition("@")[2] for name in names]


def _summed(printed: str) -> set[tuple[str, str]]:
    lines = [line.split() for line in printed.splitlines()]
    return {(name, f"sha256:{hexadecimal}") for hexadecimal, name in lines}


def _layer_digests(saved: Path) -> set[str]:
    with tarfile.open(saved) as archive:
        [described] = json.loads(_member(archive, "manifest.json"))
        return {sha256(_member(archive, name)) for name in described["Layers"]}


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None, name
    return file.read()
