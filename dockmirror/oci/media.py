"""Media types of blobs and manifests, and ``Accept``.

Source: RFC 9110, 12.5.1; of quality values only zero is respected.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

BLOB_TYPE = "application/octet-stream"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws"
EVERYTHING = (OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST, "*/*")
"""The ``Accept`` for a document that serves all clients: a narrow list would get another document."""
IMAGE_CONFIGS = (
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
)
"""Media types of the configuration of runnable images; artifacts have others."""
FOREIGN_LAYERS = frozenset(
    {
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    }
)
"""Media types of layers that may be in no registry."""

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED = r'"(?:[\t !#-\[\]-~]|\\[\t -~])*"'
# A blank can be read in one way only: else what is no list costs twice as much for each blank in it.
_TYPE = rf"{_WORD}/{_WORD}(?:[ \t]*;(?:[ \t]*{_WORD}=(?:{_WORD}|{_QUOTED}))?)*"
_RANGES = re.compile(rf"{_TYPE}(?:[ \t]*,[ \t]*{_TYPE})*")


def parse_media_type(text: str | None) -> str | None:
    """Return a ``Content-Type`` that may be passed on, or None: then the document states its type."""
    return text if text is not None and re.fullmatch(_TYPE, text) else None


def parse_accept(lines: Iterable[str]) -> tuple[str, ...]:
    """Return the ``Accept`` lines that may be passed on; malformed ones are dropped."""
    return tuple(line for line in lines if _RANGES.fullmatch(line))


def accepts(accept: Iterable[str], media_type: str | None) -> bool:
    """Return whether a client with these ``Accept`` lines takes a document of that type."""
    accepted = _parse_ranges(tuple(accept))
    return accepted is None or not accepted.isdisjoint((media_type, "*/*", "application/*"))


@lru_cache(maxsize=64)
def _parse_ranges(accept: tuple[str, ...]) -> frozenset[str] | None:
    """Return the accepted types; None if the lines name none, which accepts everything."""
    ranges = [part.split(";") for line in accept for part in line.split(",") if part.strip()]
    accepted = (name.strip().lower() for name, *params in ranges if not any(map(_is_zero, params)))
    return frozenset(accepted) if ranges else None


def accepts_everything(accept: Iterable[str]) -> bool:
    """Return whether such a client takes any document; registries answer it with their oldest type."""
    return accepts(accept, None)


def _is_zero(parameter: str) -> bool:
    name, _, value = parameter.partition("=")
    return name.strip().lower() == "q" and value.strip().strip("0.") == "" and value.strip() != ""
