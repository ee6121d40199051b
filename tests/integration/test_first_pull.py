"""The way of a new user: from nothing to an image that was pulled through the mirror."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ..conftest import Measured
from ..long import LONG
from ..test_packaging import build, started
from .parts.builder import run
from .parts.images import image
from .parts.machine import Machine
from .parts.process import CLEAN_ENVIRONMENT, free_port
from .parts.programs import require
from .parts.registry import Registry
from .pulls import skopeo_pulls

pytestmark = pytest.mark.integration

SETTINGS = """[upstreams.docker]
url = "{url}"
allow_networks = ["127.0.0.0/8"]
public = true
"""


def test_pipx(skopeo_machine: Machine, tmp_path: Path, measured: Measured) -> None:
    """Two commands lead from nothing to an image that was pulled: pipx installs the wheel, and it serves.

    They run in an empty home, so pip has cached nothing; its index is the one that this machine names.
    """
    require("pipx", "docker-registry")
    [wheel] = build(tmp_path, "--wheel").glob("*.whl")
    home, port, pulled = tmp_path / "home", free_port(), image("first pull")
    home.mkdir()
    ours = ("PYTHON", "PIPX", "XDG_", "VIRTUAL_ENV")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    installing = {**inherited, "PATH": CLEAN_ENVIRONMENT["PATH"], "HOME": str(home)}
    if not LONG:
        # Most of what is installed is never imported here; 1 would have pip compile it.
        installing["PIP_NO_COMPILE"] = "0"
    commands = home / ".local/bin"
    with Registry(tmp_path) as registry:
        registry.push("library/busybox", pulled, "latest")
        settings = tmp_path / "dockmirror.toml"
        settings.write_text(SETTINGS.format(url=registry.url))
        listening = (f"--config={settings}", f"--listen=127.0.0.1:{port}", "--operations=none")
        begun = time.monotonic()
        run(["env", "-C", str(home), "pipx", "install", "--include-deps", str(wheel)], installing)
        installed = time.monotonic()
        with started(tmp_path, port, commands, "dockmirror", "serve", *listening):
            serving = time.monotonic()
            skopeo_pulls(skopeo_machine, f"127.0.0.1:{port}/docker.io/library/busybox:latest", pulled)
            ended = time.monotonic()
    if LONG:  # otherwise other tests run beside it
        measured(
            f"from nothing to the first pull {ended - begun:.1f} s: {installed - begun:.1f} s to install, "
            f"{serving - installed:.1f} s until it serves, {ended - serving:.1f} s to pull"
        )
    assert wheel.name.split("-")[1] in run([str(commands / "dockmirror"), "--version"], CLEAN_ENVIRONMENT)
    assert "dockmirror" in run([str(commands / "twistd"), "--help"], CLEAN_ENVIRONMENT)
