"""The keys of the mirror's own tokens."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from dockmirror.users.signing_keys import read_keys

KEY = "ab" * 32


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """Is made, for its owner alone and with nothing beside it, and is the same the next time."""
    path = tmp_path / "state" / "keys"
    (key,) = read_keys(path)
    assert len(key) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == [path]
    assert read_keys(path) == (key,)
    assert read_keys(tmp_path / "other") != (key,)


def test_several(tmp_path: Path) -> None:
    """Are in their order."""
    path = tmp_path / "keys"
    path.touch(0o600)
    path.write_text(f"{KEY}\n{'cd' * 40}\n")
    assert read_keys(path) == (bytes.fromhex(KEY), b"\xcd" * 40)


@pytest.mark.parametrize(
    "text", ["", "\n", "0123456789abcdef\n", "ab" * 31, "s3cret", f"ab\n{KEY[:-2]}\n", "\xe9" * 64]
)
def test_what_holds_no_keys(tmp_path: Path, text: str) -> None:
    """Is refused, and not shown."""
    path = tmp_path / "file"
    path.touch(0o600)
    path.write_text(text)
    with pytest.raises(ValueError, match="keys") as raised:
        read_keys(path)
    told = f"expected keys of at least 32 bytes in {path}, in hexadecimal, one a line"
    assert str(raised.value) == told


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620])
def test_what_others_may_read(tmp_path: Path, mode: int) -> None:
    """Is no secret."""
    path = tmp_path / "keys"
    path.write_text(KEY)
    path.chmod(mode)
    with pytest.raises(ValueError, match="expected mode 0600"):
        read_keys(path)


def test_where_nothing_can_be_made(tmp_path: Path) -> None:
    """It says so."""
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        read_keys(tmp_path / "file" / "keys")
