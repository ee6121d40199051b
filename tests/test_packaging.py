"""The wheel and the source distribution are complete, and the installed mirror runs."""

from __future__ import annotations

import email
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from email.message import Message
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

import pytest

from .integration.parts.process import CLEAN_ENVIRONMENT, Process, free_port

ROOT = Path(__file__).parents[1]
SERVE = ("dockmirror", "serve")
TWISTD = ("twistd", "-n", "--pidfile=")
LEFT_OUT = (
    ".git",
    ".venv*",
    ".hypothesis",
    "*_cache",
    "__pycache__",
    "*.egg-info",
    "build",
    "dist",
    "dropin.cache",
)


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """Return the content of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with the source distribution and the wheel that was built from it."""
    return build(tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    """The wheel."""
    [found] = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    """The files in the wheel that are not about the wheel itself."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    """The wheel's metadata."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a new environment with nothing in it but the wheel and what it requires."""
    directory = tmp_path_factory.mktemp("environment")
    venv.create(directory, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", str(directory / "bin/python")]
    try:
        run([*pip, "install", "--quiet", "--disable-pip-version-check", str(wheel)])
    except AssertionError as error:
        if os.environ.get("REQUIRE_INTEGRATION") == "1":
            raise
        pytest.skip(f"needs a package index: {error}")
    return directory / "bin"


def test_packages(project: dict[str, Any]) -> None:
    """Every package of the tree is listed, and the plugin's folder, which is none."""
    found = {init.parent.relative_to(ROOT) for init in (ROOT / "dockmirror").rglob("__init__.py")}
    assert sorted(project["tool"]["setuptools"]["packages"]) == sorted(
        [*(".".join(package.parts) for package in found), "twisted.plugins"]
    )
    assert {module.parent.relative_to(ROOT) for module in (ROOT / "dockmirror").rglob("*.py")} == found


def test_wheel(names: set[str]) -> None:
    """The wheel has all modules, the pages' files, the plugin and the mark of types; no part of Twisted."""
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "dockmirror").rglob("*.py")}
    pages = {
        str(path.relative_to(ROOT))
        for kind in ("json", "css", "js") for path in (ROOT / "dockmirror/web").rglob(f"*.{kind}")
    }  # fmt: skip
    assert len(pages) >= 6
    others = {
        "dockmirror/py.typed",
        "dockmirror/client_config/setup.sh",
        "twisted/plugins/dockmirror_plugin.py",
    }
    assert names == modules | pages | others


def test_source_distribution(built: Path) -> None:
    """The source distribution has the tests and the documents."""
    [found] = built.glob("*.tar.gz")
    with tarfile.open(found) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names > {
        "LICENSE", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", ".ci/run",
        ".github/workflows/versions.yml", "Makefile", "mirror.tac", "docs/how-to/install.md",
        "docs/examples/dockmirror.service", "docs/examples/dockmirror.socket", "Containerfile",
        ".containerignore", "compose.yaml", ".ci/release", ".ci/publish", "charts/dockmirror/Chart.yaml",
        "charts/dockmirror/templates/nodes.yaml", "charts/dockmirror/.helmignore", "tests/kubernetes.txt",
        "tests/test_packaging.py", "tests/integration/conftest.py", "demo/__main__.py", "bench/warm.py",
        "docs/page.png", "README.zh-CN.md",
    }  # fmt: skip


def test_metadata(metadata: Message, project: dict[str, Any]) -> None:
    """The metadata say what it is, under which licence, for which Pythons, and what it requires."""
    assert metadata["Name"] == "dockmirror"
    assert metadata["Summary"] == project["project"]["description"]
    assert metadata["License-Expression"] == "MIT"
    assert metadata.get_all("License-File") == ["LICENSE"]
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert "make run" in str(metadata.get_payload())
    assert set(project["project"]["classifiers"]) == set(metadata.get_all("Classifier", []))
    assert set(project["project"]["dependencies"]) <= set(metadata.get_all("Requires-Dist", []))


def test_version(metadata: Message, project: dict[str, Any]) -> None:
    """The version stands in one place."""
    number = project["project"]["version"]
    assert metadata["Version"] == number
    for module in (ROOT / "dockmirror").rglob("*.py"):
        assert f'"{number}"' not in module.read_text(), module


@pytest.mark.integration
def test_plugin(environment: Path) -> None:
    """twistd of the new environment knows the plugin."""
    listed = run([str(environment / "twistd"), "--help"])
    assert "A mirror in front of every container registry." in listed


@pytest.mark.integration
@pytest.mark.parametrize("command", [SERVE, (*TWISTD, "dockmirror")])
def test_installed(environment: Path, tmp_path: Path, command: tuple[str, ...]) -> None:
    """The commands of the documents start the installed mirror."""
    port = free_port()
    with started(tmp_path, port, environment, *command, f"--listen=127.0.0.1:{port}", "--operations=none"):
        assert answer(port) == b"{}"


@pytest.mark.integration
def test_tac(environment: Path, tmp_path: Path) -> None:
    """mirror.tac starts the same, with the settings of the file beside it."""
    port = free_port()
    shutil.copy(ROOT / "mirror.tac", tmp_path)
    (tmp_path / "dockmirror.toml").write_text(
        f'listen = ["tcp:{port}:interface=127.0.0.1"]\noperations = ""\n'
    )
    with started(tmp_path, port, environment, *TWISTD, "-y", str(tmp_path / "mirror.tac")):
        assert answer(port) == b"{}"


@pytest.fixture(autouse=True)
def _nothing_left(tmp_path: Path) -> Iterator[None]:
    """No pid file is left to trip over."""
    yield
    assert not list(tmp_path.glob("*.pid"))


def build(directory: Path, *kinds: str) -> Path:
    """Build the wheel and the source distribution, or only the named kinds; return where they are."""
    tree, out = directory / "tree/dockmirror", directory / "out"
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*LEFT_OUT))
    enough = int(version("setuptools").partition(".")[0]) >= 77
    isolation = ["--no-isolation"] if enough else []
    run([sys.executable, "-m", "build", *kinds, *isolation, "--outdir", str(out), str(tree)])
    return out


def started(directory: Path, port: int, environment: Path, program: str, *arguments: str) -> Process:
    """The mirror as a program of the environment runs it."""
    return Process(
        [str(environment / program), *arguments],
        log=directory / "mirror.log",
        ready=lambda: answer(port) is not None,
        environment={
            **CLEAN_ENVIRONMENT,
            "CACHE_DIRECTORY": str(directory / "cache"),
            "STATE_DIRECTORY": str(directory / "state"),
        },
    )


def answer(port: int) -> bytes | None:
    """Return the response of ``/v2/``; None if nobody answers."""
    try:
        with build_opener(ProxyHandler({})).open(f"http://127.0.0.1:{port}/v2/", timeout=60) as response:
            return bytes(response.read())
    except OSError:  # of which URLError is one, and TimeoutError: what listens may be busy starting
        return None


def run(command: list[str]) -> str:
    """Return the output of a command, which must succeed."""
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "DOCKMIRROR_"))
    }
    # Most of what is installed is never imported here; 1 would have pip compile it.
    environment["PIP_NO_COMPILE"] = "0"
    completed = subprocess.run(  # noqa: S603
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert completed.returncode == 0, f"{command}\n{completed.stdout}\n{completed.stderr}"
    return completed.stdout
