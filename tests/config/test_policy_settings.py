"""Messages for invalid policies."""

from __future__ import annotations

from pathlib import Path

import pytest

from dockmirror.config.load import load
from dockmirror.config.settings import ConfigurationError, Settings

VALID = """
[[policy]]
images = "docker.io/**"
min_age = "7d"
exceptions = [{ image = "docker.io/library/nginx@sha256:*", until = 2027-01-31, reason = "CVE-2027-1" }]
"""


def test_policies_survive_the_way_to_workers(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(VALID)
    settings = load({"config": file}, {})
    assert Settings.model_validate_json(settings.as_json()).policy == settings.policy
    assert settings.policy[0].min_age == 7 * 86_400


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('min_age = "7 days"', 'policy.0.min_age: expected a duration: seconds, or a number with a unit'),
        ('min_aeg = "7d"', "policy.0.min_aeg: there is no such setting; is 'min_age' meant?"),
        ('mode = "on"', "policy.0.mode: expected 'enforce', 'warn' or 'off', not \"on\""),
        ('first_pull = "deny"', "policy.0.first_pull: expected 'serve', 'refuse' or 'registry'"),
        ('images = "a b"', "policy.0.images: expected a pattern such as"),
        ('exceptions = [{ image = "**" }]', "policy.0.exceptions.0.until: is missing"),
        ('allow = ["a"]', "policy.0.allow: there is no such setting here: it belongs in an upstream's table"),
    ],
)  # fmt: skip
def test_invalid(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "settings.toml"
    images = "" if line.startswith("images") else 'images = "**"'
    file.write_text(f"[[policy]]\n{images}\n{line}\n")
    with pytest.raises(ConfigurationError) as raised:
        load({"config": file}, {})
    assert message in str(raised.value)
