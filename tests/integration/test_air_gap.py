"""The commands of the tutorial for a site without a network, run as they are written there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from ..documented_commands import read_commands
from .conftest import MakeChain, MakeDirectory, MakeMachine
from .parts.chain import Chain
from .parts.clients import Dockerd
from .parts.images import index
from .parts.mirror import Mirror
from .parts.process import BYTECODE, CLEAN_ENVIRONMENT
from .pulls import docker_pulls, succeeded

pytestmark = pytest.mark.integration

DOCUMENT = Path(__file__).parents[2] / "docs/tutorials/air-gap.md"
PROGRAMS = Path(sys.executable).parent
STARTS_THE_MIRROR = "mirror/bin/dockmirror serve --offline"


@pytest.fixture
def outside(chains: MakeChain) -> Iterator[Chain]:
    """The mirror with a network, whose registry has the images."""
    with chains() as chain:
        yield chain


@pytest.fixture
def inside(directory: MakeDirectory, make_machine: MakeMachine) -> Iterator[Mirror]:
    """The mirror at the site, that gives out only what was imported."""
    upstreams = {"docker": {"url": "http://127.0.0.1:9", "public": False}}
    with Mirror(directory("inside"), make_machine(), upstreams, offline=True) as mirror:
        yield mirror


def run(command: str, replaced: Mapping[str, str], directory: Path) -> str:
    """Run a line in a shell, with the paths of this machine."""
    for there, here in replaced.items():
        command = command.replace(there, here)
    environment = {**CLEAN_ENVIRONMENT, **BYTECODE, "PATH": os.environ["PATH"], "COLUMNS": "120"}
    return succeeded(
        subprocess.run(  # noqa: S603
            ["/bin/sh", "-euc", command],
            env=environment, cwd=directory, capture_output=True, text=True, timeout=120, check=False,
        )
    )  # fmt: skip


def test_to_the_letter(outside: Chain, inside: Mirror, dockerd: Dockerd, tmp_path: Path) -> None:
    """The images arrive, are listed as complete, and are served and pulled by their usual names."""
    images = {"nginx:1.27": index("air gap nginx"), "busybox:1.36": index("air gap busybox")}
    for name, pushed in images.items():
        outside.registry.push(f"library/{name.partition(':')[0]}", pushed, name.partition(":")[2])
    here = ("192.168.1.5:8080", f"127.0.0.1:{inside.port}")
    replaced = {
        ".venv/bin/dockmirror": f"{PROGRAMS}/dockmirror -c {outside.mirror.configuration}",
        "mirror/bin/dockmirror": f"{PROGRAMS}/dockmirror -c {inside.configuration}",
        here[0]: here[1],
    }
    commands = [each.line for each in read_commands(DOCUMENT) if not each.not_run]
    assert STARTS_THE_MIRROR in commands
    for command in commands:
        if command.startswith("docker pull "):
            reference = command.removeprefix("docker pull ").replace(*here)
            docker_pulls(dockerd, reference, images["nginx:1.27"].children[0])
        elif command != STARTS_THE_MIRROR:
            printed = run(command, replaced, tmp_path)
            if command.endswith(" ls"):
                assert [line.split()[:2] for line in printed.splitlines()[1:]] == [
                    ["docker.io/library/busybox", "1.36"], ["docker.io/library/nginx", "1.27"]
                ]  # fmt: skip
