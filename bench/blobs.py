"""Blobs as files, named by their digests."""

from __future__ import annotations

import hashlib
import random
import urllib.request
from pathlib import Path

from demo.image import MANIFEST

_MEBIBYTE = 1024 * 1024


def make_blob(directory: Path, mebibytes: int, seed: int = 0) -> str:
    """Write a blob of repeated random bytes to the directory, and return its digest."""
    piece, hashed = random.Random(seed).randbytes(_MEBIBYTE), hashlib.sha256()
    made = directory / "made"
    with made.open("wb") as file:
        for _ in range(mebibytes):
            file.write(piece)
            hashed.update(piece)
    digest = f"sha256:{hashed.hexdigest()}"
    made.rename(directory / digest)
    return digest


def verify(url: str, digest: str) -> None:
    """Fetch a blob and compare it with its digest."""
    hashed = hashlib.sha256()
    request = urllib.request.Request(url, headers={"Accept": MANIFEST})  # noqa: S310
    with urllib.request.urlopen(request) as response:  # noqa: S310
        while data := response.read(_MEBIBYTE):
            hashed.update(data)
    if f"sha256:{hashed.hexdigest()}" != digest:
        raise ValueError(f"{url} gave other bytes")
