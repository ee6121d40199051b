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


def problem(tmp_path: Path, *lines: str) -> str:
    """Return the error of a policy of these lines; empty if it is valid."""
    file = tmp_path / "settings.toml"
    file.write_text("\n".join(("[[policy]]", *lines)))
    try:
        load({"config": file}, {})
    except ConfigurationError as error:
        return str(error)
    return ""


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
    images = [] if line.startswith("images") else ['images = "**"']
    assert message in problem(tmp_path, *images, line)


@pytest.mark.parametrize(
    "rule",
    [
        'signed_by = [{ issuer = "https://a.example", subject = "*" }]',
        "hook = true",
        'platforms = ["linux/amd64"]',
        'max_size = "1GB"',
        'media_types = ["**"]',
        "foreign_layers = false",
        'digests = "known"',
    ],
)
def test_a_rule_about_digests_cannot_have_a_pattern_of_tags(tmp_path: Path, rule: str) -> None:
    """It would hold for few pulls: clients resolve a tag first, and pull by digest."""
    age = 'min_age = "7d"'
    found = problem(tmp_path, 'images = "registry.lan:5000/team/app:1.*"', rule, age)
    key = rule.partition(" ")[0]
    assert "policy.0.images: 'registry.lan:5000/team/app:1.*' names tags, but " in found
    assert f"{key!r} would not hold for pulls by digest" in found
    assert found.endswith("expected the repository, 'registry.lan:5000/team/app'")
    assert "names tags" in problem(tmp_path, 'images = "**:latest"', rule, age)
    for images in ("registry.lan:5000/team/app", "**", "docker.io/team/app@sha256:*"):
        assert problem(tmp_path, f'images = "{images}"', rule, age) == ""


@pytest.mark.parametrize(
    ("key", "value", "needed"),
    [
        ("digests", '"known"', "min_age"),
        ("first_pull", '"refuse"', "min_age"),
        ("exceptions", '[{ image = "**", until = 2027-01-31 }]', "min_age"),
        ("unlisted", '"serve"', "lock"),
    ],
)
def test_a_key_without_the_rule_that_it_belongs_to_is_an_error(
    tmp_path: Path, key: str, value: str, needed: str
) -> None:
    images, rule = 'images = "**"', f"{needed} = " + ('"7d"' if needed == "min_age" else f'"{__file__}"')
    found = problem(tmp_path, images, f"{key} = {value}")
    assert found.endswith(f"policy.0.{key}: needs {needed!r} in the same policy")
    assert problem(tmp_path, images, f"{key} = {value}", rule) == ""


def test_a_policy_without_a_rule_is_an_error(tmp_path: Path) -> None:
    found = problem(tmp_path, 'images = "**"', 'mode = "warn"')
    assert "policy.0: has no rule: expected one of min_age, lock, signed_by" in found
    assert problem(tmp_path, 'images = "**"', "hook = false") == ""


def test_a_budget_that_limits_nothing_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match=r"budget\.0: has no limit: expected one of requests, bytes"):
        load({"budget": [{"images": "**"}]}, {})


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            "nginx",
            "a registry and a repository, such as \"docker.io/library/nginx\"; is 'docker.io/library/nginx'",
        ),
        ("nginx:1.*", "expected a registry and a repository, such as"),
        ("docker.io", "expected a registry and a repository, such as"),
        ("*", "expected a registry and a repository, such as"),
        ("docker.io/nginx", "expected a repository of two components or more, as all have at docker.io; is"),
        ("docker.io/nginx:1.*", "is 'docker.io/library/nginx:1.*' meant?"),
        ("docker.io/*", "is 'docker.io/library/*' meant?"),
    ],
)
def test_a_pattern_that_matches_no_image_is_an_error(tmp_path: Path, images: str, message: str) -> None:
    found = problem(tmp_path, f'images = "{images}"', 'min_age = "7d"')
    assert "policy.0.images: " in found
    assert message in found
    exception = f'exceptions = [{{ image = "{images}", until = 2027-01-31 }}]'
    found = problem(tmp_path, 'images = "**"', 'min_age = "7d"', exception)
    assert "policy.0.exceptions.0.image: " in found
    assert message in found


@pytest.mark.parametrize(
    "images",
    [
        "**",
        "**:latest",
        "docker.io/**",
        "docker.io/**:1.*",
        "docker.io/library/nginx",
        "ghcr.io/app",
        "*/nginx",
    ],
)
def test_a_pattern_that_can_match_an_image(tmp_path: Path, images: str) -> None:
    """A rule about tags can have a pattern of tags; an exception can be for a digest, too."""
    assert problem(tmp_path, f'images = "{images}"', 'min_age = "7d"') == ""
    for excepted in (images, f"sha256:{'0' * 64}"):
        exception = f'exceptions = [{{ image = "{excepted}", until = 2027-01-31 }}]'
        assert problem(tmp_path, 'images = "**"', 'min_age = "7d"', exception) == ""
