"""Every value that is parsed from text: it is written as it was parsed, and odd text is rejected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import RegistryError
from dockmirror.oci.header_fields import ContentRange, Range, Span
from dockmirror.oci.request import Catalog, Ping, Repository, parse_reference, parse_target
from dockmirror.oci.token import Scope

from ..values import attempt, digests, references, repositories, scopes, targets

NUMBERS = st.integers(0, 10**18 - 1) | st.integers(0, 20)
PAIRS = st.tuples(NUMBERS, NUMBERS).map(sorted)
SPANS = st.one_of(
    st.builds(lambda pair: Span(*pair), PAIRS),
    st.builds(Span, NUMBERS),
    st.builds(Span, st.none(), suffix=NUMBERS),
)
RANGES = st.lists(SPANS, min_size=1, max_size=5).map(lambda spans: Range(tuple(spans)))
PARTS = st.builds(lambda ends, size: ContentRange(ends[0], ends[1], size), PAIRS, st.none() | NUMBERS)
VALUES: dict[str, tuple[st.SearchStrategy[Any], Callable[[str], Any], str]] = {
    "digest": (digests, Digest.parse, "sha256:0f"),
    "repository": (repositories, Repository.parse, "aZ0._-/:@%\n\x00é"),
    "reference": (references, parse_reference, "aZ0._-/:@%\n\x00é"),
    "scope": (scopes, Scope.parse, "repository:,/ab(*) "),
    "range": (RANGES, Range.parse, "bytes=-,*/ 0123456789\u0663"),
    "content range": (PARTS, ContentRange.parse, "bytes=-,*/ 0123456789\u0663"),
    "target": (targets | st.sampled_from([Ping(), Catalog()]), lambda text: parse_target(text.encode()), ""),
}


@settings(max_examples=400)
@given(st.sampled_from(list(VALUES)), st.data())
def test_a_value_is_parsed_as_it_was_written(kind: str, data: st.DataObject) -> None:
    """The text of a value means that value, in each of its forms."""
    values, parse, _ = VALUES[kind]
    value = data.draw(values)
    assume(not isinstance(value, ContentRange) or value.size is None or value.last < value.size)
    assert parse(str(value)) == value


@settings(max_examples=400)
@given(st.sampled_from([kind for kind, (_, _, letters) in VALUES.items() if letters]), st.data())
def test_odd_text_is_rejected(kind: str, data: st.DataObject) -> None:
    """Any text is rejected as a bad request, ignored, or written in the same sense."""
    _, parse, letters = VALUES[kind]
    text = data.draw(st.text() | st.text(letters, max_size=80))
    value = attempt(parse, text)
    if isinstance(value, RegistryError):
        assert value.status == 400
    elif kind in ("range", "content range"):
        assert value is None or parse(str(value)) == value
    else:
        assert str(value) == text
