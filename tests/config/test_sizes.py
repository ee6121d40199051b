"""Tests of numbers of bytes and shares."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from pydantic import TypeAdapter, ValidationError

from dockmirror.config.sizes import Amount, Size

from .test_field_types import WRITTEN


@pytest.mark.parametrize("written", ["999999999999999TB", "999999TiB", "99999999999999999B", "100000TB"])
def test_a_size_that_would_lose_precision_is_refused(written: str) -> None:
    """It could not be written again as it was."""
    with pytest.raises(ValidationError):
        TypeAdapter(Size).validate_python(written)


@given(WRITTEN)
def test_negative_and_infinite_sizes_are_refused(written: object) -> None:
    """A size is a finite number of bytes."""
    adapter: TypeAdapter[Amount] = TypeAdapter(Size)
    try:
        amount = adapter.validate_python(written)
    except ValidationError:
        return
    assert amount.bytes >= 0
    assert 0 <= amount.share <= 1
    assert math.isfinite(amount.of(10**15))
