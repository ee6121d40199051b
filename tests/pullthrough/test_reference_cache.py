"""The parts of manifests, remembered."""

from __future__ import annotations

import json

from dockmirror.oci.digest import Digest
from dockmirror.oci.media import OCI_INDEX, parse_references
from dockmirror.pullthrough.reference_cache import ReferenceCache


def _digest(number: int) -> Digest:
    return Digest.parse(f"sha256:{number:064x}")


def _index(number: int) -> bytes:
    return json.dumps({"mediaType": OCI_INDEX, "manifests": [{"digest": str(_digest(number))}]}).encode()


def test_remembered() -> None:
    """What a digest names is parsed once: the same value comes again."""
    known = ReferenceCache()
    parts = known.of(_digest(1), _index(11))
    assert parts is not None
    assert parts == parse_references(_index(11))
    assert known.of(_digest(1), _index(11)) is parts


def test_told_apart() -> None:
    """Each digest has its own."""
    known = ReferenceCache()
    assert known.of(_digest(1), _index(11)) == parse_references(_index(11))
    assert known.of(_digest(2), _index(12)) == parse_references(_index(12))


def test_no_manifest() -> None:
    """What is no manifest has no parts."""
    assert ReferenceCache().of(_digest(1), b"{}") is None


def test_limit() -> None:
    """What was asked for least recently is forgotten first, and one that is larger than the limit at once."""
    known = ReferenceCache(limit=4)
    first, second = known.of(_digest(1), _index(11)), known.of(_digest(2), _index(12))
    assert known.of(_digest(1), _index(11)) is first
    known.of(_digest(3), _index(13))
    assert known.of(_digest(1), _index(11)) is first
    assert known.of(_digest(2), _index(12)) is not second
    small = ReferenceCache(limit=1)
    assert small.of(_digest(1), _index(11)) is not small.of(_digest(1), _index(11))
