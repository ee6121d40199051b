"""Examples that their own programs have to understand."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import MakeMachine
from .pulls import succeeded

pytestmark = pytest.mark.integration

EXAMPLES = Path(__file__).parents[2] / "docs/examples"


def test_caddyfile(make_machine: MakeMachine) -> None:
    """Caddy finds nothing wrong with it."""
    machine = make_machine("caddy")
    options = ["--adapter", "caddyfile", "--config", str(EXAMPLES / "Caddyfile")]
    succeeded(machine.run("caddy", "validate", *options))
