"""buildah with a base image of this machine's own Python, since none can be fetched here."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from tests.long import LONG

from .process import CLEAN_ENVIRONMENT

ROOT = Path(__file__).parents[3]
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
_OWN = next((each for each, machine in _MACHINES.items() if machine == platform.machine()), "amd64")
PLATFORMS = tuple(_MACHINES) if LONG else (_OWN,)
"""The platforms of the images.  The wheels of all are downloaded in any case: nothing else differs."""
_BASE = "FROM scratch\nADD root /\nENV PATH=/usr/bin\n"
_PROGRAMS = ("python3", "sh", "dash", "test", "sleep", "id", "stat")
_LEFT_OUT = ("__pycache__", "test", "tkinter", "idlelib", "config-*")
_MOUNTED = ("--volume=/usr:/usr:ro", "--volume=/etc/ssl:/etc/ssl:ro", "--isolation=chroot")
_OFFLINE = ("--env=PIP_NO_INDEX=1", "--env=PIP_FIND_LINKS=/wheels")


def run(command: list[str], environment: Mapping[str, str]) -> str:
    """Return what a command printed; it must have ended well."""
    completed = subprocess.run(  # noqa: S603
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert completed.returncode == 0, f"{command}\n{completed.stdout}\n{completed.stderr}"
    return completed.stdout


class Builder:
    """buildah with a storage of its own.

    :ivar options: of a build of the Containerfile without a network.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        storage = ["--root", f"{directory}/storage", "--runroot", f"{directory}/run"]
        self.command = ["buildah", *storage, "--storage-driver=vfs"]
        self.environment = {**CLEAN_ENVIRONMENT, "HOME": str(directory)}
        self.wheels = directory / "wheels"
        volume = f"--volume={self.wheels}:/wheels:ro"
        self.options = [*_MOUNTED, *_OFFLINE, volume, "--build-arg=BASE=localhost/base"]

    def run(self, *arguments: str) -> str:
        """Return what buildah printed; it must have ended well."""
        return run([*self.command, *arguments], self.environment)

    def build_base(self) -> None:
        """Build an image with Python for each platform, which runs on that of this machine only."""
        copy_python(self.directory / "root")
        (self.directory / "Base").write_text(_BASE)
        for each in PLATFORMS:
            options = [f"--platform=linux/{each}", "--manifest=base", f"--file={self.directory}/Base"]
            self.run("build", *options, str(self.directory))

    def download_wheels(self) -> None:
        """Download what is installed in the images of all platforms."""
        pip = [sys.executable, "-m", "pip", "--python", "/usr/bin/python3", "--quiet", "download"]
        pip += ["--only-binary=:all:", "--no-deps", f"--dest={self.wheels}"]
        try:
            run([*pip, f"--requirement={ROOT}/locks/build.txt"], dict(os.environ))
            for machine in _MACHINES.values():
                tags = [f"--platform=manylinux_2_{minor}_{machine}" for minor in range(17, 37)]
                requirement = f"--requirement={ROOT}/locks/image.txt"
                run([*pip, *tags, f"--platform=manylinux2014_{machine}", requirement], dict(os.environ))
        except AssertionError as error:
            if os.environ.get("REQUIRE_INTEGRATION") == "1":
                raise
            pytest.skip(f"needs a package index: {error}")


def copy_python(root: Path) -> None:
    """Copy this machine's Python, and the few programs beside it that an image needs, to a new root."""
    for each in ("tmp", "var", "etc", "proc", "sys", "dev", "run", "usr/lib64", "usr/sbin"):
        (root / each).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    for each in ("bin", "lib", "lib64", "sbin"):
        (root / each).symlink_to(f"usr/{each}")
    python = Path("/usr/bin/python3").resolve()
    library = Path("/usr/lib") / python.name
    programs = [Path("/usr/bin") / name for name in _PROGRAMS] + [python]
    for file in {*programs, *_libraries([*programs, *library.glob("lib-dynload/*.so")])}:
        target = root / file.parent.resolve().relative_to("/") / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target, follow_symlinks=file.parent != Path("/usr/bin"))
    shutil.copytree(
        library, root / library.relative_to("/"), symlinks=True, ignore=shutil.ignore_patterns(*_LEFT_OUT)
    )


def _libraries(programs: Iterable[Path]) -> set[Path]:
    """Return what programs are linked with, and all of the C library's own."""
    linked = run(["ldd", *map(str, programs)], CLEAN_ENVIRONMENT)
    of_c = run(["dpkg", "--listfiles", "libc6", "libgcc-s1"], CLEAN_ENVIRONMENT)
    found = re.findall(r"(/\S+) \(0x", linked) + re.findall(r"^/\S*/lib[^/]*\.so\.\d+$", of_c, re.MULTILINE)
    return set(map(Path, found))
