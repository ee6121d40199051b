"""The commands that pull a small public image through a mirror, to see whether a client uses it."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from .snippet import HUB, MirrorAddress, MirroredRegistry

_IMAGES = {
    HUB: "library/hello-world",
    "quay.io": "podman/hello",
    "mcr.microsoft.com": "mcr/hello-world",
    "public.ecr.aws": "docker/library/hello-world",
    "registry.k8s.io": "pause:3.10",
    "ghcr.io": "containerd/busybox:1.36",
}
"""Small images that the registries give to everybody, in the order in which they are suggested."""


@frozen
class TrialPull:
    """The command of one client."""

    title: str
    command: str


def trial_pulls(mirror: MirrorAddress, host: MirroredRegistry | None = None) -> Sequence[TrialPull]:
    """Return the commands by which clients that are set up pull an image of the mirror's registries.

    Where no small image is known, the name is one to fill in.

    :param host: the registry whose virtual host the client uses; its name is then in the command.
    """
    registry = host or trial_registry(mirror)
    image = trial_image(registry)
    name = f"{registry.host}/{image}" if host else f"{registry.name}/{image}"
    if host is not None:
        docker = name
    else:
        short = image.removeprefix("library/")
        # Docker asks a mirror only for images of Docker Hub.
        docker = short if registry.name == HUB else f"{mirror.by_path(registry)}/{image}"
    return [
        TrialPull("Docker", f"docker pull {docker}"),
        TrialPull("Podman", f"podman pull {name}"),
        TrialPull("Kubernetes", f"crictl pull {name}"),
    ]


def trial_registry(mirror: MirrorAddress) -> MirroredRegistry:
    """Return the registry whose image is suggested: one of which a small image is known, or the first."""
    by_name = {each.name: each for each in mirror.registries}
    return next((by_name[name] for name in _IMAGES if name in by_name), mirror.registries[0])


def trial_image(registry: MirroredRegistry) -> str:
    """Return the repository of an image, with a tag if it needs one."""
    return _IMAGES.get(registry.name, registry.placeholder)
