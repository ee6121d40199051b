"""Platforms."""

from __future__ import annotations

import pytest

from dockmirror.oci.platform import Platform


@pytest.mark.parametrize("text", ["linux/amd64", "linux/arm/v7", "windows/amd64"])
def test_round_trip(text: str) -> None:
    """A platform is written as it was parsed."""
    assert str(Platform.parse(text)) == text


@pytest.mark.parametrize("text", ["", "linux", "linux/", "a/b/c/d", "linux/arm v7"])
def test_none(text: str) -> None:
    """Malformed platforms are rejected."""
    with pytest.raises(ValueError, match="expected a platform"):
        Platform.parse(text)


def test_admits() -> None:
    """A platform without a variant matches any variant, and one with a variant only that one."""
    arm, v7, v8 = (Platform.parse(f"linux/arm{variant}") for variant in ("", "/v7", "/v8"))
    assert (arm.matches(v7), v7.matches(v7), v7.matches(v8), v7.matches(arm)) == (True, True, False, False)
    assert not arm.matches(Platform("windows", "arm"))
    assert not Platform("unknown", "unknown").is_real
