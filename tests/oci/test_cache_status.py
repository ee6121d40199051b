"""``Cache-Status`` and the header fields beside it."""

from __future__ import annotations

import pytest

from dockmirror.oci.header_fields import CacheResult, CacheStatus, parse_age


@pytest.mark.parametrize("result", CacheResult)
def test_round_trip(result: CacheResult) -> None:
    """A result that is written is read back."""
    headers = dict(CacheStatus(result).headers())
    assert headers["Cache-Status"] == f"dockmirror; {result.value}"
    assert CacheStatus.parse([headers["Cache-Status"]]) == CacheStatus(result)


@pytest.mark.parametrize("field", ["", "hit", "squid; hit", "dockmirror", "dockmirror; fwd=else"])
def test_fields_of_other_caches_are_ignored(field: str) -> None:
    assert CacheStatus.parse([field]) is None


@pytest.mark.parametrize(
    "lines",
    [
        ["dockmirror; hit", "dockmirror; fwd=miss"],
        ['cdn; detail="a, b; hit", dockmirror; fwd=miss'],
        ['"a, \\"b", dockmirror; fwd=miss'],
    ],
)
def test_the_nearest_of_several_caches_counts(lines: list[str]) -> None:
    assert CacheStatus.parse(lines) == CacheStatus(CacheResult.MISS)
    assert CacheStatus.parse([*lines, "squid; hit"]) is None


@pytest.mark.parametrize(
    ("field", "age"),
    [
        ("0", 0),
        (" 7 ", 7),
        ("9999999999", 9999999999),
        (None, None),
        ("-1", None),
        ("1.5", None),
        ("x", None),
    ],
)
def test_an_age_is_a_number_of_seconds(field: str | None, age: float | None) -> None:
    assert parse_age(field) == age


def test_hits() -> None:
    """A hit is an answer for which no upstream was asked."""
    hits = [CacheResult.HIT, CacheResult.STALE_WHILE_REVALIDATE, CacheResult.REDIRECTED]
    assert [each for each in CacheResult if each.is_hit] == hits


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ('say "no"\\\n' + "x" * 300, "say 'no'/ " + "x" * 190),
        ("a\r\nSet-Cookie: x", "a Set-Cookie: x"),
        ("nein, über\x00\x7f", "nein, ?ber"),
        ("", "the upstream gave no reason"),
    ],
)
def test_every_field(reason: str, text: str) -> None:
    """A status names its age, the reason for staleness as printable text, and how long others may keep it."""
    assert CacheStatus(CacheResult.STALE, -0.5, reason, immutable=True).headers() == (
        ("Cache-Status", "dockmirror; fwd=stale; detail=upstream"),
        ("Vary", "Accept, Authorization"),
        ("Age", "0"),
        ("Warning", f'299 - "served stale: {text}"'),
        ("Cache-Control", "public, max-age=31536000, immutable"),
    )
