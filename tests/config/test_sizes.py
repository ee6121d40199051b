"""How much: what may be written, and what is never meant."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from pydantic import TypeAdapter, ValidationError

from dockmirror.config.sizes import Amount, Size

from .test_field_types import WRITTEN


@pytest.mark.parametrize("written", ["999999999999999TB", "999999TiB", "99999999999999999B", "100000TB"])
def test_a_size_beyond_all_disks(written: str) -> None:
    """Could not be written down again as it was."""
    with pytest.raises(ValidationError):
        TypeAdapter(Size).validate_python(written)


@given(WRITTEN)
def test_no_size_is_below_nothing(written: object) -> None:
    """Nor without an end."""
    adapter: TypeAdapter[Amount] = TypeAdapter(Size)
    try:
        amount = adapter.validate_python(written)
    except ValidationError:
        return
    assert amount.bytes >= 0
    assert 0 <= amount.share <= 1
    assert math.isfinite(amount.of(10**15))
