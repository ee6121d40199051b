"""Configuration of dockerd: on a host, in Docker Desktop's virtual machine, and as a service of a GitLab job.

``registry-mirrors`` is for Docker Hub only.  dockerd speaks plain HTTP to 127.0.0.0/8 without being told, and
to a mirror whose entry begins with ``http://``.  The BuildKit within it does so only where
``insecure-registries`` has ``http://`` before the host; dockerd itself ignores such an entry with a warning.
https://docs.docker.com/reference/cli/dockerd/
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .mirror_address import MirrorAddress
from .snippet import ClientConfig, Snippet

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


DOCKER = ClientConfig("docker", "Docker", _docker_snippets, "systemctl restart docker")
DESKTOP = ClientConfig("desktop", "Docker Desktop", _desktop_snippets)
GITLAB = ClientConfig("gitlab", "GitLab CI, docker-in-docker", _gitlab_snippets)
