"""A dockerd that runs as a service of a GitLab job: options in the job's file, or in the runner's.

https://docs.gitlab.com/ci/docker/using_docker_build/
"""

from __future__ import annotations

import json

from .docker import daemon
from .mirror_address import MirrorAddress
from .snippet import ClientConfig, Snippet

_OPTIONS = {"registry-mirrors": "--registry-mirror", "insecure-registries": "--insecure-registry"}


def _snippets(mirror: MirrorAddress) -> list[Snippet]:
    command = json.dumps(
        [f"{_OPTIONS[key]}={value}" for key, values in daemon(mirror).items() for value in values[:1]]
    )
    job = f"services:\n  - name: docker:dind\n    alias: docker\n    command: {command}\n"
    runner = (
        '[[runners]]\n  [runners.docker]\n    [[runners.docker.services]]\n      name = "docker:dind"\n'
        f'      alias = "docker"\n      command = {command}\n'
    )
    return [Snippet(job, ".gitlab-ci.yml"), Snippet(runner, "/etc/gitlab-runner/config.toml", "runner")]


GITLAB = ClientConfig("gitlab", "GitLab CI, docker-in-docker", _snippets)
