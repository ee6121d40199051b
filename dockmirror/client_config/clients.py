"""The clients that the mirror has instructions for: their configuration, setup scripts and trial pulls."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from attrs import frozen

from .snippet import FILE_MARK, HUB, ClientConfig, MirrorAddress, MirroredRegistry, Snippet

# Configuration of dockerd: on a host, in Docker Desktop's virtual machine, and as a service of a GitLab job.
#
# ``registry-mirrors`` is for Docker Hub only.  dockerd speaks plain HTTP to 127.0.0.0/8 without being told,
# and to a mirror whose entry begins with ``http://``.  The BuildKit within it does so only where
# ``insecure-registries`` has ``http://`` before the host; dockerd itself ignores such an entry with a
# warning.
# https://docs.docker.com/reference/cli/dockerd/


_DESKTOP_HOST = "host.docker.internal"
"""The name by which Docker Desktop's virtual machine reaches the machine that it runs on."""
_OPTIONS = {"registry-mirrors": "--registry-mirror", "insecure-registries": "--insecure-registry"}


def merge_daemon_json(existing: Mapping[str, Any], mirror: MirrorAddress) -> dict[str, Any]:
    """Return a ``daemon.json`` that names the mirror and keeps everything that the existing one says.

    :raises ValueError: when a key that should hold a list holds something else.
    """
    result = dict(existing)
    for key, values in _daemon_json(mirror).items():
        present = existing.get(key, [])
        if not isinstance(present, list):
            raise ValueError(f"expected a list as {key!r}")
        result[key] = [*values, *(each for each in present if each not in values)]
    return result


def _daemon_json(mirror: MirrorAddress) -> dict[str, list[str]]:
    daemon = {"registry-mirrors": [mirror.url]}
    if mirror.is_plain and not mirror.is_loopback:
        hosts = [mirror.host, *(each.host for each in mirror.registries if each.host)]
        daemon["insecure-registries"] = [f"http://{host}" for host in dict.fromkeys(hosts)]
    return daemon


def _docker_snippets(mirror: MirrorAddress) -> list[Snippet]:
    text = json.dumps(_daemon_json(mirror), indent=2) + "\n"
    return [Snippet(text, "/etc/docker/daemon.json", comment="", is_file=True), _pull_by_name(mirror)]


def _pull_by_name(mirror: MirrorAddress) -> Snippet:
    registry = mirror.example
    places = [mirror.by_path(registry), *([registry.host] if registry.host else [])]
    return Snippet("".join(f"docker pull {place}/{registry.placeholder}\n" for place in places), name="names")


def _desktop_snippets(mirror: MirrorAddress) -> list[Snippet]:
    reachable = mirror.with_host_name(_DESKTOP_HOST) if mirror.is_loopback else mirror
    return [Snippet(json.dumps(_daemon_json(reachable), indent=2) + "\n", comment="")]


def _gitlab_snippets(mirror: MirrorAddress) -> list[Snippet]:
    """Return options for the job's file, and for the runner's.

    https://docs.gitlab.com/ci/docker/using_docker_build/
    """
    command = json.dumps(
        [f"{_OPTIONS[key]}={value}" for key, values in _daemon_json(mirror).items() for value in values[:1]]
    )
    job = f"services:\n  - name: docker:dind\n    alias: docker\n    command: {command}\n"
    runner = (
        '[[runners]]\n  [runners.docker]\n    [[runners.docker.services]]\n      name = "docker:dind"\n'
        f'      alias = "docker"\n      command = {command}\n'
    )
    return [Snippet(job, ".gitlab-ci.yml"), Snippet(runner, "/etc/gitlab-runner/config.toml", "runner")]


DOCKER = ClientConfig("docker", "Docker", _docker_snippets, "systemctl reload docker", system="linux")
DESKTOP = ClientConfig("desktop", "Docker Desktop", _desktop_snippets, system="desktop", tab="docker")
GITLAB = ClientConfig("gitlab", "GitLab CI, docker-in-docker", _gitlab_snippets)


# Podman, Buildah and CRI-O: containers-registries.conf(5), as a drop-in.

_PODMAN_FILE = "/etc/containers/registries.conf.d/50-dockmirror.conf"
PODMAN_PATTERNS = ("etc/containers/registries.conf", "etc/containers/registries.conf.d/*.conf")
"""The files that have tables of registries, in the order in which podman reads them."""
_PODMAN_HOST = "host.containers.internal"
"""The name by which podman's virtual machine reaches the machine that it runs on."""


def _podman_snippets(mirror: MirrorAddress) -> list[Snippet]:
    text = "\n".join(_podman_registry(mirror, registry) for registry in mirror.registries)
    return [Snippet(text, _PODMAN_FILE, is_file=True)]


def _podman_registry(mirror: MirrorAddress, registry: MirroredRegistry) -> str:
    insecure = "insecure = true\n"
    is_plain = registry.server == f"http://{registry.name}"  # podman asks the name, whatever the mirror asks
    return (
        f'[[registry]]\nlocation = "{registry.name}"\n{insecure * is_plain}\n'
        f'[[registry.mirror]]\nlocation = "{mirror.by_path(registry)}"\n{insecure * mirror.is_plain}'
    )


def podman_tables(configuration: Mapping[str, Any]) -> set[str]:
    """Return the prefixes of the tables in a file; a file that is read later replaces them as a whole."""
    tables = configuration.get("registry")
    found = (each for each in (tables if isinstance(tables, list) else []) if isinstance(each, dict))
    return {str(each.get("prefix") or each.get("location")).rstrip("/") for each in found}


PODMAN = ClientConfig("podman", "Podman, Buildah, CRI-O", _podman_snippets, system="linux")


def _podman_machine_snippets(mirror: MirrorAddress) -> list[Snippet]:
    """Return the command that has podman's virtual machine fetch its file.

    https://docs.podman.io/en/latest/markdown/podman-machine-ssh.1.html
    """
    reachable = mirror.with_host_name(_PODMAN_HOST) if mirror.is_loopback else mirror
    return [Snippet(f'podman machine ssh "sudo curl -fsSo {_PODMAN_FILE} {reachable.url}/client/podman"\n')]


# containerd, and Kubernetes on it: one hosts.toml for each registry, which the parameter ``ns`` of a request
# names.  https://github.com/containerd/containerd/blob/main/docs/hosts.md

_CERTS = "/etc/containerd/certs.d"
_CONTAINERD_CONFIG = f"""\
# containerd 1
[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "{_CERTS}"

# containerd 2
[plugins."io.containerd.cri.v1.images".registry]
  config_path = "{_CERTS}"
"""
_REFERRERS = """\
  # containerd 2.2 and newer: add "referrers", or they ask the server above for signatures and SBOMs,
  # past the mirror. Older ones know no such capability, and do not read this file then.
"""


def _containerd_snippets(mirror: MirrorAddress) -> list[Snippet]:
    names = " \\\n  ".join(registry.name for registry in mirror.registries)
    loop = (
        f"for registry in \\\n  {names}\ndo\n"
        f'  mkdir -p "{_CERTS}/$registry"\n'
        f'  curl -fsS "{mirror.url}/client/containerd/$registry" > "{_CERTS}/$registry/hosts.toml"\n'
        "done\n"
    )
    config = Snippet(_CONTAINERD_CONFIG, "/etc/containerd/config.toml", "config")
    return [*_containerd_hosts(mirror)[:1], Snippet(loop, name="all"), config]


def _containerd_hosts(mirror: MirrorAddress) -> list[Snippet]:
    host = f'[host."{mirror.url}"]\n{_REFERRERS}  capabilities = ["pull", "resolve"]\n'
    return [
        Snippet(
            f"{_containerd_server(registry)}\n{host}",
            f"{_CERTS}/{registry.name}/hosts.toml",
            registry.name,
            is_file=True,
        )
        for registry in mirror.registries
    ]


def _containerd_server(registry: MirroredRegistry) -> str:
    """Return the lines that name the registry itself; without the second, ``/v2`` would follow the path."""
    if not registry.prefix:
        return f'server = "{registry.server}"\n'
    return f'server = "{registry.server}/v2/{registry.prefix}"\noverride_path = true\n'


# k3s and RKE2, which generate their containerd's files from this one.
# https://docs.k3s.io/installation/private-registry


def _k3s_snippets(mirror: MirrorAddress) -> list[Snippet]:
    mirrors = "".join(
        f"  {json.dumps(registry.name)}:\n    endpoint:\n      - {json.dumps(mirror.url)}\n"
        for registry in mirror.registries
    )
    return [Snippet(f"mirrors:\n{mirrors}", "/etc/rancher/k3s/registries.yaml", is_file=True)]


# BuildKit on its own; the one within dockerd uses dockerd's mirrors.  A mirror's path becomes the first part
# of the repository's name.  https://docs.docker.com/build/buildkit/configure/


def _buildkit_snippets(mirror: MirrorAddress) -> list[Snippet]:
    tables = [_buildkit_registry(mirror, registry) for registry in mirror.registries]
    if mirror.is_plain:
        tables.append(f'[registry."{mirror.host}"]\n  http = true\n')
    create = "docker buildx create --use --buildkitd-config buildkitd.toml\n"
    file = Snippet("\n".join(tables), "/etc/buildkit/buildkitd.toml", is_file=True)
    return [file, Snippet(create, name="buildx")]


def _buildkit_registry(mirror: MirrorAddress, registry: MirroredRegistry) -> str:
    place = mirror.host if registry.name == HUB else mirror.by_path(registry)
    return f'[registry."{registry.name}"]\n  mirrors = ["{place}"]\n'


# kaniko: options of its executor.  ``--registry-map`` came with 1.22, and with paths in 1.23.
# https://github.com/GoogleContainerTools/kaniko#--registry-map


def _kaniko_snippets(mirror: MirrorAddress) -> list[Snippet]:
    mapped = [each for each in mirror.registries if each.name != HUB]
    options = [f"--registry-mirror={mirror.host}"]
    if mapped:
        pairs = ";".join(f"{each.name}={mirror.by_path(each)}" for each in mapped)
        options.append(f"--registry-map='{pairs}'")
    if mirror.is_plain:
        options.append(f"--insecure-registry={mirror.host}")
    return [Snippet(" \\\n".join(options) + "\n")]


# Clients that need no configuration: the mirror's name is part of the image's name.


def _helm_snippets(mirror: MirrorAddress) -> list[Snippet]:
    plain = "--plain-http " if mirror.is_plain else ""
    place = _prefix(mirror, mirror.example)
    return [
        Snippet(f"helm pull {plain}oci://{place}/OWNER/CHART\noras pull {plain}{place}/OWNER/ARTIFACT:TAG\n")
    ]


def _skopeo_snippets(mirror: MirrorAddress) -> list[Snippet]:
    registry = mirror.registries[0]
    place = _prefix(mirror, registry)
    lines = [
        f"skopeo inspect {'--tls-verify=false ' * mirror.is_plain}docker://{place}/IMAGE\n",
        f"crane manifest {'--insecure ' * mirror.is_plain}{mirror.by_path(registry)}/library/IMAGE\n",
        f"curl -s {mirror.scheme}://{mirror.host}/v2/{registry.path}/library/IMAGE/manifests/TAG\n",
    ]
    return [Snippet("".join(lines))]


def _prefix(mirror: MirrorAddress, registry: MirroredRegistry) -> str:
    return registry.host or mirror.by_path(registry)


def download_archive(mirror: MirrorAddress) -> Snippet:
    """Return commands that download an image as an archive and load it where no mirror is reached.

    The same ``curl`` command resumes an interrupted download.
    """
    image = f"{mirror.registries[0].name}/library/busybox:latest"
    address = f"{mirror.url}/export?image={image}&platform=linux/amd64"
    return Snippet(f'curl -C - -o busybox.tar "{address}"\ndocker load -i busybox.tar\n')


CLIENTS: Mapping[str, ClientConfig] = {
    client.name: client
    for client in (
        DOCKER,
        DESKTOP,
        PODMAN,
        ClientConfig("machine", "Podman machine", _podman_machine_snippets, system="desktop", tab="podman"),
        ClientConfig("containerd", "containerd, Kubernetes", _containerd_snippets, more=_containerd_hosts),
        ClientConfig("k3s", "k3s", _k3s_snippets, "systemctl restart k3s"),
        ClientConfig("buildkit", "BuildKit", _buildkit_snippets, "systemctl restart buildkit"),
        GITLAB,
        ClientConfig("kaniko", "kaniko", _kaniko_snippets),
        ClientConfig("helm", "Helm, oras", _helm_snippets),
        ClientConfig("skopeo", "skopeo, crane, curl", _skopeo_snippets),
    )
}
"""All clients by name, in the order in which people see them."""


# Trial pulls: the commands that pull a small public image, to see whether a client uses the mirror.

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


# Setup scripts, which configure a client on its own machine, say what they change, and take it back.

SETUP_CLIENTS = ("docker", "podman", "containerd", "k3s")
"""The names of the clients that have a script."""
_END = "END_OF_FILE"


def render_setup_script(name: str, mirror: MirrorAddress) -> str:
    """Return the script of one of ``SETUP_CLIENTS``, for a POSIX shell.

    :raises ValueError: when a file of the client cannot stand in a script.
    """
    client = CLIENTS[name]
    written = client.files(mirror)
    values = {
        "TITLE": client.title,
        "CLIENT": shlex.quote(client.name),
        "MARK": shlex.quote(FILE_MARK.rstrip("\n")),
        "PATHS": "\n".join(each.path for each in written),
        "CONTENTS": "".join(_case(client, each) for each in written).rstrip("\n"),
    }
    script = _template()
    for key, value in values.items():
        script = script.replace(f"@{key}@", value)
    return script.replace("mirror=@URL@", f"mirror={shlex.quote(mirror.url)}").replace("@URL@", mirror.url)


@cache
def _template() -> str:
    return files(__package__).joinpath("setup.sh").read_text("utf-8")


def _case(client: ClientConfig, file: Snippet) -> str:
    """Return the case of the function that prints a file."""
    text = client.file_text(file)
    if _END in text.splitlines() or file.path.split() != [file.path]:
        raise ValueError(f"{file.path}: not to be written by a script")
    return f"    {shlex.quote(file.path)}) cat <<'{_END}'\n{text}{_END}\n      ;;\n"
