"""Programs that a test writes."""

from __future__ import annotations

import os
from pathlib import Path


def program(path: Path, script: str) -> str:
    """An executable shell script; returns its path."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return str(path)


def helper(path: Path, name: str, secret: str, before: str = "") -> str:
    """A credential helper with one secret, which writes beside itself what it was asked, then does this."""
    return program(
        path,
        f"""
        server=$(cat)
        echo "$1 $server" >> '{path}.asked'
        {before}
        printf '{{"ServerURL":"%s","Username":"%s","Secret":"%s"}}' "$server" '{name}' '{secret}'
        """,
    )
