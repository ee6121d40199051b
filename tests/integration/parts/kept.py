"""The contents of a mirror's directory: its log, its settings and its store."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from .images import Image

_BLOBS = "docker/registry/v2/blobs"
_REPOSITORIES = "docker/registry/v2/repositories"
_TELLING = 40
"""So many of a secret's last letters are looked for: tokens begin alike."""
_HALF = _TELLING // 2
_RUN = re.compile(rb"[\w.~+/=-]{%d,}" % _TELLING)
_STEP = 8
_IS_LETTER = bytes(bool(re.match(rb"[\w.~+/=-]", bytes([byte]))) for byte in range(256))
_LETTERS = b"\1" * (_TELLING // _STEP)


def blob_file(cache: Path, digest: str) -> Path:
    """The file of a complete blob."""
    hexadecimal = digest.removeprefix("sha256:")
    return cache / _BLOBS / "sha256" / hexadecimal[:2] / hexadecimal / "data"


def holds(cache: Path, repository: str, image: Image) -> bool:
    """Return True if the store has all of an image of one platform, linked from that repository."""
    return all((cache / link).exists() for link in links(repository, image))


def links(repository: str, image: Image) -> list[str]:
    """The links by which a repository has an image of one platform, below the root of a store."""
    entries = [f"_manifests/revisions/{image.digest}", *(f"_layers/{blob.digest}" for blob in image.blobs)]
    return [f"{_REPOSITORIES}/{repository}/{entry.replace(':', '/')}/link" for entry in entries]


def layer_link(cache: Path, repository: str, digest: str) -> Path:
    """The link that says that a repository has a blob; it is made after the file."""
    return cache / f"{_REPOSITORIES}/{repository}/_layers/{digest.replace(':', '/')}/link"


def tag_link(repository: str, tag: str) -> str:
    """The one that says what the tag names."""
    return f"{_REPOSITORIES}/{repository}/_manifests/tags/{tag}/current/link"


def growing_file(cache: Path, digest: str, registry: str = "docker.io") -> Path:
    """The file of a blob while it is downloaded."""
    return cache / "dockmirror/growing" / registry / digest.replace(":", "-")


def blocks_file(cache: Path, digest: str, registry: str = "docker.io") -> Path:
    """The file of the blocks of a blob that clients have read parts of."""
    file = growing_file(cache, digest, registry)
    return file.with_name(f"{file.name}.blocks")


def length(file: Path) -> int:
    """The size of a file in bytes; 0 if there is none."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def files(directory: Path) -> list[Path]:
    """All files below a directory from which others may be deleted meanwhile."""
    return [Path(folder, name) for folder, _, names in os.walk(directory) for name in names]


def blobs(cache: Path) -> list[Path]:
    """The files of all whole blobs and manifests."""
    return [file for file in files(cache / _BLOBS) if file.name == "data"]


def forget_figures(cache: Path) -> None:
    """Delete the usage counter, so that the mirror scans its store at the next check."""
    (cache / "dockmirror/usage_counter").write_bytes(b"")


def wrong_blobs(cache: Path) -> list[Path]:
    """The files of blobs whose bytes do not have the digest in their name."""
    return [file for file in blobs(cache) if _sha256(file) not in (file.parent.name, None)]


def leaks(directory: Path, secrets: Iterable[str]) -> list[str]:
    """The files in which one of the secrets stands; the upstream's own contents are not looked into."""
    looked_for = _split(frozenset(secrets))
    return [str(file) for file in files(directory) if _BLOBS not in str(file) and _holds(file, *looked_for)]


@lru_cache(maxsize=1)  # many directories are searched for the same ones
def _split(secrets: frozenset[str]) -> tuple[set[bytes], set[bytes], set[bytes]]:
    """Return the secrets that are short, the ends of the others, and the halves of these ends."""
    tails = {secret[-_TELLING:].encode() for secret in secrets}
    short = {tail for tail in tails if len(tail) < _TELLING}
    return short, tails - short, {tail[at : at + _HALF] for tail in tails - short for at in range(_HALF + 1)}


def _holds(file: Path, short: set[bytes], long: set[bytes], halves: set[bytes]) -> bool:
    """Return True if one of the secrets is in the file.

    Tokens are too many to look for each. A text that contains one has, at some multiple of half a tail's
    length, a half of it, so only the texts where that is so are looked at letter by letter.
    """
    text = str(file).encode() + b"\n"
    with suppress(FileNotFoundError):  # it has gone meanwhile
        text += file.read_bytes() if file.is_file() else b""
    if any(tail in text for tail in short):
        return True
    runs = [run[0] for part in _letters(text) for run in _RUN.finditer(part)]
    steps = {run: range(0, len(run), _HALF) for run in runs}
    suspects = [run for run in runs if any(run[at : at + _HALF] in halves for at in steps[run])]
    return any(run[at : at + _TELLING] in long for run in suspects for at in range(len(run) - _TELLING + 1))


def _letters(text: bytes) -> Iterator[bytes]:
    """The parts of a text that may have a run of letters; a look at every eighth byte rules out the others.

    Of a blob, which is large, hardly anything is left.
    """
    seen = text[::_STEP].translate(_IS_LETTER)
    begin = seen.find(_LETTERS)
    while begin >= 0:
        end = seen.find(b"\0", begin) % (len(seen) + 1)
        yield text[max(begin - 1, 0) * _STEP : end * _STEP]
        begin = seen.find(_LETTERS, end)


def _sha256(file: Path) -> str | None:
    """The digest of a file, or None if it was deleted meanwhile."""
    with suppress(FileNotFoundError), file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
    return None
