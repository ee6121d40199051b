"""Errors: the specification's table."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dockmirror.oci import errors
from dockmirror.oci.errors import (
    ERROR_CLASSES,
    BlobUnknown,
    RangeInvalid,
    RegistryError,
    TimedOut,
    Unavailable,
    Unreachable,
)

SPECIFIED = [
    *(
        "BLOB_UNKNOWN",
        "BLOB_UPLOAD_INVALID",
        "BLOB_UPLOAD_UNKNOWN",
        "DIGEST_INVALID",
        "MANIFEST_BLOB_UNKNOWN",
    ),
    *("MANIFEST_INVALID", "MANIFEST_UNKNOWN", "NAME_INVALID", "NAME_UNKNOWN", "SIZE_INVALID", "UNAUTHORIZED"),
    *("DENIED", "UNSUPPORTED", "TOOMANYREQUESTS"),
]
"""OCI distribution specification 1.1, "Error Codes": code-1 to code-14."""
ADDED = ["TAG_INVALID", "RANGE_INVALID", "UNAVAILABLE"]
STATUSES = {
    "BLOB_UNKNOWN": 404, "BLOB_UPLOAD_UNKNOWN": 404, "MANIFEST_BLOB_UNKNOWN": 404, "MANIFEST_UNKNOWN": 404,
    "NAME_UNKNOWN": 404, "UNAUTHORIZED": 401, "DENIED": 403, "UNSUPPORTED": 405, "TOOMANYREQUESTS": 429,
    "RANGE_INVALID": 416, "UNAVAILABLE": 502,
}  # fmt: skip
"""Every other status is 400."""


def read(error: RegistryError) -> list[dict[str, Any]]:
    body = json.loads(error.body())
    assert list(body) == ["errors"]
    errors: list[dict[str, Any]] = body["errors"]
    return errors


def test_every_code_of_the_specification_has_a_row() -> None:
    """Every code of the specification has a class, and three additions of distribution."""
    assert [row.code for row in ERROR_CLASSES] == SPECIFIED + ADDED


def test_every_class_is_in_the_table() -> None:
    """Every class is in the table, or is a subclass of one that is."""
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    declared = [c for c in classes if issubclass(c, RegistryError) and c is not RegistryError]
    assert set(ERROR_CLASSES) <= set(declared)
    assert all(any(issubclass(c, row) for row in ERROR_CLASSES) for c in declared)
    assert len({c.code for c in ERROR_CLASSES}) == len(ERROR_CLASSES)


@pytest.mark.parametrize("row", ERROR_CLASSES, ids=lambda row: row.code)
def test_a_row_has_a_status_and_a_message(row: type[RegistryError]) -> None:
    """Each class has a default status and message."""
    error = row()
    assert error.status == STATUSES.get(row.code, 400)
    assert read(error) == [{"code": row.code, "message": row.default_message, "detail": None}]
    assert str(error) == row.default_message


def test_an_error_says_more_where_more_is_known() -> None:
    """Message and status; the exception's own text is the message."""
    error = BlobUnknown("not here", status=410)
    assert (error.status, str(error)) == (410, "not here")
    assert read(error) == [{"code": "BLOB_UNKNOWN", "message": "not here", "detail": None}]


def test_a_416_knows_how_much_there_is() -> None:
    """A 416 carries the size of the content, if it is known."""
    assert RangeInvalid(content_size=0).content_size == 0
    assert RangeInvalid().content_size is None


def test_what_is_of_no_row_is_unknown() -> None:
    """A mistake of our own, or an upstream's refusal that no row fits."""
    error = RegistryError()
    assert (error.status, error.challenges, error.retry_after, error.upstream_status) == (500, (), None, None)
    assert read(error) == [{"code": "UNKNOWN", "message": "unknown error", "detail": None}]


def test_a_cause_never_leaves_the_process() -> None:
    error = Unreachable("cannot be reached")
    error.__cause__ = ValueError("s3cret")
    assert "s3cret" not in f"{error.body()!r} {error}"


def test_no_answer_is_another_error_than_no_image() -> None:
    """502, or 504 where it took too long; both are of the kind that is tried again."""
    assert (Unreachable().status, TimedOut().status) == (502, 504)
    assert issubclass(TimedOut, Unreachable)
    assert issubclass(Unreachable, Unavailable)
    assert Unreachable().code == TimedOut().code == "UNAVAILABLE"
