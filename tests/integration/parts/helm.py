"""helm, which renders the chart of this repository."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-not-found, import-untyped, unused-ignore]

from .process import CLEAN_ENVIRONMENT

HELM = str(Path(sys.executable).parent / "helm")
KUBECTL = str(Path(sys.executable).parent / "kubectl")
"""The programs, which ``make`` unpacks from what ``tests/kubernetes.txt`` installs."""
CHART = Path(__file__).parents[3] / "charts/dockmirror"
RELEASE, NAMESPACE = "m", "mirrors"
Object = dict[str, Any]


def helm(*arguments: str, home: Path, **variables: str) -> str:
    """Run helm, and return what it printed; it must have ended well."""
    environment = {**CLEAN_ENVIRONMENT, "HOME": str(home), **variables}
    completed = subprocess.run(  # noqa: S603
        [HELM, *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, f"{arguments}\n{completed.stdout}\n{completed.stderr}"
    return completed.stdout


def render(home: Path, values: Mapping[str, Any] | None = None, chart: Path = CHART) -> list[Object]:
    """Return the objects that the chart makes of the values, its hooks among them."""
    rendered = helm(
        "template", RELEASE, str(chart), f"--namespace={NAMESPACE}", *value_options(values or {}), home=home
    )
    return [each for each in yaml.safe_load_all(rendered) if each]


def value_options(values: Mapping[str, Any]) -> Sequence[str]:
    """Return the options that give values, of which each is JSON."""
    return [f"--set-json={key}={json.dumps(value)}" for key, value in values.items()]


def of_kind(objects: Sequence[Object], kind: str, end: str = "") -> Object:
    """Return the only object of a kind whose name ends so."""
    [found] = (each for each in objects if each["kind"] == kind and each["metadata"]["name"].endswith(end))
    return found


def pod_spec(workload: Object) -> Object:
    """Return what a workload says of its pods."""
    spec: Object = workload["spec"]["template"]["spec"]
    return spec


def arguments(container: Object, variables: Mapping[str, str]) -> list[str]:
    """Return a container's arguments, with variables put in as Kubernetes does."""
    texts = list(container.get("args", []))
    for name, value in variables.items():
        texts = [text.replace(f"$({name})", value) for text in texts]
    return texts
