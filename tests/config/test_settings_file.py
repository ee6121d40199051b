"""Tests of the search for the file of the settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from dockmirror.config.load import find_settings_file, load, load_found
from dockmirror.config.settings import ConfigurationError

VARIABLE = {"DOCKMIRROR_CONFIG": "/from/variable.toml"}


def test_the_given_file_wins_over_the_variable_and_that_over_the_default(tmp_path: Path) -> None:
    default = tmp_path / "dockmirror.toml"
    default.touch()
    assert find_settings_file("/given.toml", VARIABLE, default) == Path("/given.toml")
    assert find_settings_file(None, VARIABLE, default) == Path("/from/variable.toml")
    assert find_settings_file(None, {}, default) == default


def test_a_default_file_that_does_not_exist_is_passed_over(tmp_path: Path) -> None:
    assert find_settings_file(None, {"DOCKMIRROR_CONFIG": ""}, tmp_path / "none.toml") is None
    (tmp_path / "file").touch()
    assert find_settings_file(None, {}, tmp_path / "file/none.toml") is None


def test_the_file_is_read_anew_each_time(tmp_path: Path) -> None:
    file = tmp_path / "dockmirror.toml"
    options = {"config": str(file), "grace": "5"}
    for domain in ("a.example", "b.example"):
        file.write_text(f'domain = "{domain}"\ngrace = 7\n')
        settings = load_found(options, {})
        assert (settings.domain, settings.grace) == (domain, 5)


def test_a_default_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """A loop of links stands for a file whose owner alone may reach it, which root does not notice."""
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert find_settings_file(None, {}, loop) == loop
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load({"config": loop}, {})
