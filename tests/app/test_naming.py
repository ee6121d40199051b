"""The names of registries, of the mirror's hosts, and of images."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.app.naming import (
    certificate_names,
    complete_image_pattern,
    parse_image_name,
    parse_image_pattern,
    registry_names,
)
from dockmirror.config.known_registries import KNOWN
from dockmirror.config.load import load
from dockmirror.config.settings import UpstreamSettings
from dockmirror.oci.digest import Digest
from dockmirror.oci.reference import Repository, parse_reference
from dockmirror.oci.request import Manifest

DIGEST = str(Digest.of(b""))
SETTINGS = load({}, {})


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.27", "docker.io/library/nginx:1.27"),
        ("grafana/grafana", "docker.io/grafana/grafana:latest"),
        ("docker.io/nginx", "docker.io/library/nginx:latest"),
        ("index.docker.io/library/nginx:1", "docker.io/library/nginx:1"),
        (f"ghcr.io/o/r@{DIGEST}", f"ghcr.io/o/r@{DIGEST}"),
        (f"ghcr.io/o/r:1@{DIGEST}", f"ghcr.io/o/r@{DIGEST}"),
        ("registry.example.com:5000/a/b:c", "registry.example.com_5000/a/b:c"),
        ("localhost/a", "localhost/a:latest"),
    ],
)
def test_image_names_are_completed_as_docker_does(text: str, name: str) -> None:
    """Registries have the names that the store uses."""
    assert str(parse_image_name(text, SETTINGS)) == name


@pytest.mark.parametrize(
    ("pattern", "covered"),
    [
        ("nginx", "nginx"),
        ("nginx:1.*", "nginx:1.27"),
        ("team/*", "team/app"),
        ("docker.io/ngin?:latest", "nginx"),
        ("**", "team/app"),
        ("*/o/r", "ghcr.io/o/r"),
        ("registry.example.com:5000/a/*:c", "registry.example.com:5000/a/b:c"),
    ],
)
def test_patterns_are_completed_like_names(pattern: str, covered: str) -> None:
    """A pattern without a registry is one of Docker Hub's images."""
    name = parse_image_name(covered, SETTINGS)
    other = parse_image_name("ghcr.io/x/nginx:0", SETTINGS)
    rule = parse_image_pattern(pattern, SETTINGS)
    assert rule.covers(Manifest(name.repository, name.reference))
    assert not rule.covers(Manifest(other.repository, other.reference))


@pytest.mark.parametrize(
    "text",
    ["", "Nginx", "nginx:", "a b", "ghcr.io/", "nginx@sha256:1", "../../x", "a:/etc/x", "A.b/c", "a..b/c"],
)
def test_invalid_image_names_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="invalid"):
        parse_image_name(text, SETTINGS)


@given(st.text() | st.text("aA./:@-_%0\\", max_size=20))
def test_any_text_is_refused_or_gives_valid_names(text: str) -> None:
    try:
        name = parse_image_name(text, SETTINGS)
    except ValueError:
        return
    assert Repository.parse(str(name.repository)) == name.repository
    assert parse_reference(str(name.reference)) == name.reference


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("", ""),
        ("nginx", "docker.io/library/nginx"),
        ("nginx:1.27", "docker.io/library/nginx:1.27"),
        ("registry:5000/team/app", "registry_5000/team/app"),
        ("registry_5000/team/app:1", "registry_5000/team/app:1"),
        ("other_5000/app", "docker.io/other_5000/app"),
        ("ghcr.io/team/*", "ghcr.io/team/*"),
        ("*[ab]", "*[ab]"),
    ],
)
def test_an_image_of_the_history_is_named_in_short_or_as_the_history_does(text: str, pattern: str) -> None:
    settings = load({"upstreams": {"own": {"url": "http://registry:5000"}}}, {})
    assert complete_image_pattern(text, settings) == pattern


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"url": "https://a.example"}, ["a.example"]),
        ({"url": "http://a.example:5000"}, ["a.example_5000", "a.example:5000"]),
        (
            {"url": "http://x:1", "registry": "docker.io", "aliases": ["b.io", "docker.io"]},
            ["docker.io", "b.io"],
        ),
    ],
)
def test_a_registry_has_the_tables_names_or_its_address(settings: dict[str, Any], names: list[str]) -> None:
    """A port is joined by an underscore in repository paths."""
    assert registry_names(UpstreamSettings(**settings)) == names


def test_every_public_host_name_is_certified_once() -> None:
    settings = load({"domain": "m.example", "names": ["mirror.lan", "m.example"]}, {})
    assert certificate_names(settings) == (
        *("m.example", "mirror.lan"),
        *[f"{known.name}.m.example" for known in KNOWN],
    )
