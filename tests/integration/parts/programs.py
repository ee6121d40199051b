"""Programs that have to be installed for a test."""

from __future__ import annotations

import os
import shutil

import pytest

from .process import CLEAN_ENVIRONMENT


def require(*programs: str) -> None:
    """Skip where a program is not installed, or fail where the environment says that all must be there."""
    missing = [each for each in programs if shutil.which(each, path=CLEAN_ENVIRONMENT["PATH"]) is None]
    if os.geteuid() != 0:
        missing.append("root's rights")
    if missing:
        message = f"needs {', '.join(missing)}"
        if os.environ.get("REQUIRE_INTEGRATION") == "1":
            pytest.fail(message)
        pytest.skip(message)
