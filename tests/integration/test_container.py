"""The image: built by the Containerfile as it stands, and run.

No base image can be fetched here, so one is made in which the machine's own Python lies; what has to be
installed was downloaded before.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import MakeDirectory
from .parts.plain import PlainClient
from .parts.process import CLEAN_ENVIRONMENT, Process, free_port
from .parts.programs import require

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
BASE = "FROM scratch\nADD root /\nENV PATH=/usr/bin\n"
EXTRA = "import dockmirror.tls.acme_client"
MOUNTED = ("--volume=/usr:/usr:ro", "--volume=/etc/ssl:/etc/ssl:ro", "--isolation=chroot")


class Builder:
    """buildah with a storage of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        storage = ["--root", f"{directory}/storage", "--runroot", f"{directory}/run"]
        self.command = ["buildah", *storage, "--storage-driver=vfs"]
        self.environment = {**CLEAN_ENVIRONMENT, "HOME": str(directory)}

    def run(self, *arguments: str) -> str:
        """The output of buildah, which must have ended well."""
        return ran([*self.command, *arguments], self.environment)

    def build_base(self) -> None:
        """An image in which ``/usr`` can be mounted."""
        root = self.directory / "root"
        for each in ("usr", "tmp", "var", "etc"):
            (root / each).mkdir(parents=True)
        (root / "tmp").chmod(0o1777)
        for each in ("bin", "lib", "lib64", "sbin"):
            (root / each).symlink_to(f"usr/{each}")
        (self.directory / "Base").write_text(BASE)
        self.run("build", "--tag=base", f"--file={self.directory}/Base", str(self.directory))

    def download(self) -> Path:
        """Download the distributions that are installed in the image."""
        locks = (f"--requirement={ROOT}/locks/{name}.txt" for name in ("build", "image"))
        wheels = self.directory / "wheels"
        pip = [sys.executable, "-m", "pip", "--python", "/usr/bin/python3", "--quiet"]
        try:
            options = ["--no-deps", "--only-binary=:all:", f"--dest={wheels}"]  # a lock names all
            ran([*pip, "download", *options, *locks], dict(os.environ))
        except AssertionError as error:
            if os.environ.get("REQUIRE_INTEGRATION") == "1":
                raise
            pytest.skip(f"needs a package index: {error}")
        return wheels

    def build(self) -> None:
        """The image, by the Containerfile."""
        wheels = self.download()
        # Compiling all modules would take most of the time, and nothing that is asked here depends on it.
        variables = ("PIP_NO_INDEX=1", "PIP_FIND_LINKS=/wheels", "PIP_NO_COMPILE=1")
        offline = [*(f"--env={each}" for each in variables), f"--volume={wheels}:/wheels:ro"]
        options = [*MOUNTED, *offline, "--build-arg=BASE=localhost/base", "--format=docker"]
        self.run("build", *options, "--tag=dockmirror", f"--file={ROOT}/Containerfile", str(ROOT))


def ran(command: list[str], environment: dict[str, str]) -> str:
    """The output of a command, which must have ended well."""
    completed = subprocess.run(  # noqa: S603
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert completed.returncode == 0, f"{command}\n{completed.stdout}\n{completed.stderr}"
    return completed.stdout


@pytest.fixture(scope="module")
def builder(directory: MakeDirectory) -> Builder:
    """buildah, which has built the image."""
    require("buildah")
    builder = Builder(directory("container"))
    builder.build_base()
    builder.build()
    return builder


@pytest.fixture(scope="module")
def configuration(builder: Builder) -> Any:
    """The image's configuration."""
    return json.loads(builder.run("inspect", "--type=image", "dockmirror"))["Docker"]["config"]


def test_configuration(configuration: Any) -> None:
    """The image has an unprivileged user, volumes and its port."""
    assert configuration["User"] == "10001:10001"
    assert sorted(configuration["Volumes"]) == ["/var/cache/dockmirror", "/var/lib/dockmirror"]
    assert list(configuration["ExposedPorts"]) == ["8080/tcp"]


@pytest.fixture
def container(builder: Builder) -> Iterator[str]:
    """A container of the image."""
    name = builder.run("from", "dockmirror").strip()
    yield name
    builder.run("rm", name)


def test_run(builder: Builder, configuration: Any, container: str) -> None:
    """A container answers, may write to its volumes, and is healthy until it is stopped."""
    port = free_port()
    client = PlainClient(f"http://127.0.0.1:{port}")
    listening = [f"--listen=tcp:{port}:interface=127.0.0.1", "--operations=none"]
    inside = [*builder.command, "run", *MOUNTED, container, "--"]
    process = Process(
        [*inside, *configuration["Entrypoint"], *listening],
        log=builder.directory / "container.log",
        ready=lambda: _answers(client),
        environment=builder.environment,
    )
    kind, *check = configuration["Healthcheck"]["Test"]
    assert kind == "CMD"
    check = [part.replace(":8080/", f":{port}/") for part in check]
    with process:
        ran([*inside, *check], builder.environment)
        assert ran([*inside, "/usr/bin/id", "-u"], builder.environment) == "10001\n"
        volumes = [*inside, "/usr/bin/stat", "-c", "%u %a", *configuration["Volumes"]]
        assert ran(volumes, builder.environment) == "10001 750\n" * 2
        ran([*inside, "/opt/dockmirror/bin/python", "-c", EXTRA], builder.environment)
    with pytest.raises(AssertionError, match="refused"):
        ran([*inside, *check], builder.environment)


def _answers(client: PlainClient) -> bool:
    try:
        return client.bare("GET", "/v2/", None, {}).status == 200
    except OSError:
        return False


def test_sources() -> None:
    """All sources of the image exist, and are the exceptions of the ignore file."""
    lines = (ROOT / "Containerfile").read_text("utf-8").splitlines()
    copied = [line.split()[1:-1] for line in lines if line.startswith("COPY ") and "--from=" not in line]
    sources = {source for each in copied for source in each}
    ignored = (ROOT / ".containerignore").read_text("utf-8").splitlines()
    assert sources == {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert all((ROOT / source).exists() for source in sources)
