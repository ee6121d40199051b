"""The lock files name versions and hashes that satisfy pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
DEPENDENCIES: list[str] = PROJECT["project"]["dependencies"]
NEEDED = {
    "image": [*DEPENDENCIES, *EXTRAS["acme"], *EXTRAS["objects"], *EXTRAS["signatures"]],
    "checks": [*DEPENDENCIES, *(each for extra in EXTRAS.values() for each in extra)],
    "build": PROJECT["build-system"]["requires"],
    "docs": PROJECT["dependency-groups"]["docs"],
}


def locked(name: str, python: str) -> dict[str, str]:
    """The version of each package under that Python."""
    text = (ROOT / f"locks/{name}.txt").read_text("utf-8").replace("\\\n", " ")
    found: dict[str, str] = {}
    for line in filter(None, text.splitlines()):
        requirement = Requirement(line.partition(" --hash")[0])
        environment = {"python_version": python, "python_full_version": f"{python}.0"}
        assert line.count(" --hash=sha256:") > 0, line
        if requirement.marker is None or requirement.marker.evaluate(environment):
            assert canonicalize_name(requirement.name) not in found, line
            (pinned,) = requirement.specifier
            assert pinned.operator == "=="
            found[canonicalize_name(requirement.name)] = pinned.version
    return found


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("name", NEEDED)
def test_satisfies(name: str, python: str) -> None:
    """Each requirement, under each Python: one version, which it admits, with its hashes."""
    versions = locked(name, python)
    for each in map(Requirement, NEEDED[name]):
        if each.name != "dockmirror":  # its own extras
            assert each.specifier.contains(versions[canonicalize_name(each.name)], prereleases=True), each


@pytest.mark.parametrize("python", PYTHONS)
def test_the_image_has_what_is_tested(python: str) -> None:
    """The same versions."""
    checks = locked("checks", python)
    for name in ("image", "build"):
        assert locked(name, python).items() <= checks.items()


INSTALLS = {"Containerfile": ("build", "image"), "Makefile": ("checks", "docs")}


@pytest.mark.parametrize(("file", "locks"), INSTALLS.items())
def test_installed_by_hash(file: str, locks: tuple[str, ...]) -> None:
    """The installed versions are those of the lock files."""
    text = (ROOT / file).read_text("utf-8")
    for name in locks:
        assert f"locks/{name}.txt" in text
    assert "--require-hashes" in text


def test_the_oldest_twisted_is_tested() -> None:
    """The workflow's oldest Twisted is the oldest that pyproject.toml admits."""
    workflow = (ROOT / ".github/workflows/versions.yml").read_text("utf-8")
    tested = re.search(r"name: oldest Twisted\n *twisted: twisted\[tls\]==(\S+)", workflow)
    assert tested
    (required,) = (each for each in map(Requirement, DEPENDENCIES) if each.name == "twisted")
    (oldest,) = required.specifier
    assert oldest.operator == ">="
    assert Version(oldest.version) == Version(tested[1])
