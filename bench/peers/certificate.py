"""A certificate for the servers of the benchmark."""

from __future__ import annotations

import subprocess
from pathlib import Path


def make_certificate(directory: Path) -> Path:
    """Make a self-signed certificate, with its key beside it."""
    path = directory / "origin.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += [
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost,IP:127.0.0.1",
    ]
    command += ["-out", str(path), "-keyout", str(path.with_suffix(".key"))]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603
    return path
