"""Manifests as JSON that all clients read alike.

Clients in Go match keys without regard to case, and the last of several keys wins.  They pass over keys
that they do not know.  So one document can be a harmless image to one program and another image to the next.

Sources: Go, ``encoding/json``, "Unmarshal"; CVE-2021-41190 (documents that are manifest and index at once).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NoReturn

_PLATFORM_KEYS = frozenset({"architecture", "os", "os.version", "os.features", "variant", "features"})
_DESCRIPTOR_KEYS = frozenset(
    {"mediaType", "digest", "size", "urls", "annotations", "data", "artifactType", "platform"}
)
_IMAGE_KEYS = frozenset({"config", "layers"})
_INDEX_KEYS = frozenset({"manifests"})
_SCHEMA_1_KEYS = frozenset({"fsLayers", "history"})
_KINDS = (_IMAGE_KEYS, _INDEX_KEYS, _SCHEMA_1_KEYS)
_MANIFEST_KEYS = frozenset.union(
    *_KINDS, {"schemaVersion", "mediaType", "artifactType", "subject", "annotations", "blobs"}
)


def load_manifest(data: bytes) -> dict[str, Any]:
    """Return the fields of a manifest or an index.

    :raises ValueError: when the document is no object in UTF-8, or clients may read it in different ways.
    """
    try:
        fields = json.loads(data.decode(), object_pairs_hook=_read_object, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("the document is nested too deeply") from None
    if not isinstance(fields, dict):
        raise ValueError("expected an object")
    _check_keys(fields, _MANIFEST_KEYS)
    if sum(not kind.isdisjoint(fields) for kind in _KINDS) > 1:
        raise ValueError("the document is of several kinds at once")
    for key in ("config", "subject"):
        _check_descriptors([fields.get(key)])
    for key in ("layers", "manifests", "blobs"):
        _check_descriptors(fields.get(key))
    return fields


def parse_size(value: object) -> int | None:
    """Return a size, or None if it is not stated.

    :raises ValueError: when it is no integer of 64 bits.
    """
    if value is None:
        return None
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise ValueError("expected an integer of 64 bits")
    return value


def _check_descriptors(values: object) -> None:
    """Check the keys of descriptors; other values cannot be read as any."""
    for value in values if isinstance(values, list) else ():
        if isinstance(value, dict):
            _check_keys(value, _DESCRIPTOR_KEYS)
            if isinstance(platform := value.get("platform"), dict):
                _check_keys(platform, _PLATFORM_KEYS)


def _check_keys(keys: Iterable[str], known: frozenset[str]) -> None:
    """:raises ValueError: when a key is a known one in another case."""
    folded = {each.casefold() for each in known}
    for key in keys:
        if key not in known and key.casefold() in folded:
            raise ValueError(f"{key!a} is a known key in another case")


def _read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("the document has a key twice")
    for key, value in pairs:
        key.encode()  # half of a surrogate pair is an error here, and another character in other programs
        if isinstance(value, str):
            value.encode()
    return fields


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
