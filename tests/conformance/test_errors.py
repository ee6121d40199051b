"""Errors: each refusal is in the specification's format, with a code of its table."""

from __future__ import annotations

import json

import pytest

from tests.integration.parts.plain import Response

from .asked import OCTETS, Asked

pytestmark = pytest.mark.integration


def _refused(answer: Response, status: int, code: str) -> None:
    assert answer.status == status
    assert answer.headers["Content-Type"].partition(";")[0] == "application/json"
    for error in json.loads(answer.body)["errors"]:
        assert error["code"] == code
        assert isinstance(error.get("message", ""), str)


@pytest.mark.lacks("distribution", "2.8 looks for the state of its own locations first")
def test_upload_of_nobody(registry: Asked) -> None:
    """An upload that nobody has begun is unknown."""
    path = "blobs/uploads/00000000-0000-0000-0000-000000000000"
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        answer = registry.ask(method, path, b"" if method[0] == "P" else None, OCTETS)
        _refused(answer, 404, "BLOB_UPLOAD_UNKNOWN")


def test_put_with_a_digest_of_no_sense(registry: Asked) -> None:
    """A digest must be one."""
    location = registry.begin()
    target = f"{location}{'&' if '?' in location else '?'}digest=sha256:no"
    _refused(registry.ask("PUT", target, b"data", OCTETS), 400, "DIGEST_INVALID")
