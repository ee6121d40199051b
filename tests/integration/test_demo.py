"""The demonstration, run as ``make demo`` runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .pulls import succeeded

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


def test_demonstration() -> None:
    """It pulls through the mirror, also when no upstream answers any more."""
    printed = succeeded(
        subprocess.run(
            [sys.executable, "-m", "demo"],
            cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
        )
    )  # fmt: skip
    assert printed.endswith("Every byte was what its digest says.\n")
