"""Many requests on persistent connections by wrk."""

from __future__ import annotations

import re
import subprocess

from attrs import frozen

_MILLISECONDS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


@frozen
class Asked:
    """Requests per second, and the median and the 99th percentile of the latency in milliseconds."""

    rate: float
    half: float
    most: float


def wrk(url: str, connections: int, seconds: int) -> Asked:
    """:raises ValueError: when a response had another status than 200."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", url]
    command += ["-H", "Accept: application/vnd.oci.image.manifest.v1+json"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603
    if "Non-2xx" in told or "Socket errors" in told:
        raise ValueError(told)
    rate = re.search(r"Requests/sec: +([\d.]+)", told)
    assert rate
    return Asked(float(rate[1]), _latency(told, 50), _latency(told, 99))


def _latency(told: str, percent: int) -> float:
    match = re.search(rf"{percent}% +([\d.]+)(us|ms|s)", told)
    assert match
    return float(match[1]) * _MILLISECONDS[match[2]]
