"""The checks of the settings for a proxy that sends files itself."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from grp import getgrgid
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor

from dockmirror.app.cache_settings import check_cache_group
from dockmirror.app.start_check import find_start_problems
from dockmirror.config.load import load
from dockmirror.config.settings import ConfigurationError, Settings
from dockmirror.system.posix import find_group


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everybody may enter."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o711)  # noqa: S103
        yield Path(name)


ACCEL: dict[str, Any] = {
    "accel": "nginx", "trust_proxy": ["unix"], "operations": "", "listen": ["unix:/nowhere/s"],
}  # fmt: skip


def settings_of(**settings: Any) -> Settings:
    return load({"cache_group": str(os.getgid()), **settings}, {})


def test_no_group(place: Path) -> None:
    assert check_cache_group(place, load({}, {})) is None


def test_a_cache_that_the_group_can_reach(place: Path) -> None:
    """The cache itself need not exist yet."""
    assert check_cache_group(place / "deep" / "cache", settings_of()) == os.getgid()


def test_a_cache_that_the_group_cannot_reach(place: Path) -> None:
    """The message names the outermost directory that is closed."""
    place.chmod(0o700)
    (place / "inner").mkdir(0o700)
    with pytest.raises(ConfigurationError) as caught:
        check_cache_group(place / "inner" / "cache", settings_of())
    assert str(caught.value) == (
        f"cache_group: the group {os.getgid()} cannot enter {place}, above the cache;"
        " let it enter (chmod o+x), or set 'cache' to another directory"
    )
    settings = settings_of(cache=str(place / "inner" / "cache"), operations="", listen=["unix:/nowhere/s"])
    assert str(caught.value) in find_start_problems(settings, {}, reactor)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trust_proxy": []}, "accel: needs 'trust_proxy', the address that nginx connects from"),
        ({"cache_group": None}, "accel: needs 'cache_group', a group that nginx's user belongs to"),
    ],
)
def test_what_accel_needs(settings: dict[str, Any], message: str) -> None:
    settings_of(**ACCEL)
    with pytest.raises(ConfigurationError, match=message):
        settings_of(**{**ACCEL, **settings})


def test_accel_needs_a_cache() -> None:
    problems = find_start_problems(settings_of(**ACCEL, cache_size="0"), {}, reactor)
    assert "accel: needs a cache, whose files nginx sends; set cache_size above 0" in problems


@pytest.mark.parametrize("group", ["no-such-group", "-1", "³"])
def test_unknown_groups(group: str) -> None:
    with pytest.raises(ConfigurationError, match="cache_group: expected a group of this machine, not"):
        load({"cache_group": group}, {})


def test_groups_by_name_and_number() -> None:
    """A number need not have a name: in a container it has none."""
    by_name = load({"cache_group": getgrgid(os.getgid()).gr_name}, {})
    assert find_group(by_name.cache_group or "") == os.getgid()
    assert find_group(load({"cache_group": 54_321}, {}).cache_group or "") == 54_321
