"""Pulls of a whole image by skopeo."""

from __future__ import annotations

import subprocess
import tempfile
import time


def pull(image: str) -> float:
    """Pull an image from a registry without TLS into a directory, and return the seconds it took."""
    with tempfile.TemporaryDirectory() as directory:
        started = time.monotonic()
        copy("--src-tls-verify=false", f"docker://{image}", f"dir:{directory}")
        return time.monotonic() - started


def copy(*arguments: str) -> None:
    """Run ``skopeo copy``."""
    subprocess.run(["skopeo", "--insecure-policy", "copy", "--quiet", *arguments], check=True)  # noqa: S603, S607
