"""How settings are written: whatever is, each kind takes it or says what it expected."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from dockmirror.config.values import (
    Amount,
    Bytes,
    Host,
    Label,
    NetworkName,
    Origin,
    Prefix,
    Program,
    Seconds,
    Size,
    TagTtl,
    Timeout,
    Username,
)

KINDS = [Bytes, Host, Label, NetworkName, Origin, Prefix, Program, Seconds, Size, TagTtl, Timeout, Username]
WRITTEN = (
    st.text() | st.text("0123456789.%KMGTiB e+-_:/[]@", max_size=20) | st.integers() | st.floats()
    | st.booleans() | st.none() | st.lists(st.text(), max_size=2)
    | st.dictionaries(st.text(), st.integers(), max_size=2)
)  # fmt: skip


@settings(max_examples=1000)
@given(st.sampled_from(KINDS), WRITTEN)
def test_nothing_is_too_odd(kind: Any, written: object) -> None:
    """In whichever place it stands."""
    adapter: TypeAdapter[object] = TypeAdapter(kind)
    try:
        value = adapter.validate_python(written)
    except ValidationError:
        return
    assert adapter.validate_json(adapter.dump_json(value)) == value


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
