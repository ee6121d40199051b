"""Tests of the types of settings."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from dockmirror.config.field_types import Host, Label, NetworkName, Origin, Prefix, Program, TagTtl, Username
from dockmirror.config.notation import Bytes, Days, Seconds, Share, Size, Timeout, Window

KINDS = [
    Bytes,
    Days,
    Host,
    Label,
    NetworkName,
    Origin,
    Prefix,
    Program,
    Seconds,
    Share,
    Size,
    TagTtl,
    Timeout,
    Username,
    Window,
]
WRITTEN = (
    st.text() | st.text("0123456789.%KMGTiB e+-_:/[]@", max_size=20) | st.integers() | st.floats()
    | st.booleans() | st.none() | st.lists(st.text(), max_size=2)
    | st.dictionaries(st.text(), st.integers(), max_size=2)
)  # fmt: skip


@settings(max_examples=300)
@given(st.sampled_from(KINDS), WRITTEN)
def test_each_type_accepts_a_value_or_says_what_it_expected(kind: Any, written: object) -> None:
    adapter: TypeAdapter[object] = TypeAdapter(kind)
    try:
        value = adapter.validate_python(written)
    except ValidationError:
        return
    assert adapter.validate_json(adapter.dump_json(value)) == value
