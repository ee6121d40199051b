"""The command beside the mirror."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from .mirror import Mirror
from .process import CLEAN_ENVIRONMENT


def dockmirror(mirror: Mirror, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, with the mirror's own settings."""
    command = str(Path(sys.executable).with_name("dockmirror"))
    return subprocess.run(  # noqa: S603
        [command, "-c", str(mirror.configuration), *arguments],
        env={**CLEAN_ENVIRONMENT, "COLUMNS": "80"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
