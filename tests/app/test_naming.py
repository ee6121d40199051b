"""The names of registries, of the mirror's hosts, and of images."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st
from zope.interface import implementer

from dockmirror.app.naming import (
    ask_by_store_names,
    certificate_names,
    complete_image_pattern,
    name_at_upstream,
    name_for_clients,
    parse_client_name,
    parse_image_name,
    parse_image_pattern,
    pull_name,
    registry_names,
)
from dockmirror.config.known_registries import KNOWN
from dockmirror.config.load import load
from dockmirror.config.settings import Settings, UpstreamSettings
from dockmirror.interfaces import Answer, IRegistry
from dockmirror.oci.digest import Digest
from dockmirror.oci.request import (
    Catalog,
    Manifest,
    RegistryRequest,
    Repository,
    parse_reference,
    repository_of,
)

from ..answering import json_answer, now

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


def test_a_digest_alone_names_no_image() -> None:
    """It would be read as the tag of an official image that is called like the algorithm."""
    with pytest.raises(ValueError, match="needs the name of a repository before it"):
        parse_image_name(str(Digest.of(b"")), SETTINGS)
    assert str(parse_image_name("sha256:1", SETTINGS)) == "docker.io/library/sha256:1"


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


def rewriting(rewrite: dict[str, str], short_names: str = "complete") -> Settings:
    """Return settings of an upstream whose names are rewritten."""
    own = {"url": "http://reg.test", "aliases": ["reg"], "rewrite": rewrite, "short_names": short_names}
    return load({"upstreams": {"own": own}}, {})


REWRITING = rewriting({"old": "team"})


@pytest.mark.parametrize(
    ("text", "name", "settings"),
    [
        ("reg.test/old/app:1", "reg.test/team/app:1", REWRITING),
        ("reg.test/team/app:1", "reg.test/team/app:1", REWRITING),
        ("reg.test/nginx", "reg.test/library/nginx:latest", REWRITING),
        ("reg.test/older/app", "reg.test/older/app:latest", REWRITING),
        (f"reg.test/old@{DIGEST}", f"reg.test/library/old@{DIGEST}", REWRITING),
        ("old/app", "docker.io/old/app:latest", REWRITING),
        ("nginx", "docker.io/nginx:latest", load({"upstreams": {"docker": {"short_names": "off"}}}, {})),
        ("reg.test/nginx", "reg.test/library/nginx:latest", rewriting({}, "redirect")),
    ],
)
def test_an_image_is_named_as_a_pull_of_it_is_stored(text: str, name: str, settings: Settings) -> None:
    """Short names are completed, if the settings say so, before beginnings are rewritten."""
    assert str(parse_image_name(text, settings)) == name


def test_an_image_of_the_history_has_the_upstreams_name() -> None:
    assert complete_image_pattern("reg.test/old/app", REWRITING) == "reg.test/team/app"
    assert complete_image_pattern("reg.test/old/app:1", REWRITING) == "reg.test/team/app:1"


def test_a_name_that_clients_see_is_completed_but_not_rewritten() -> None:
    assert str(parse_client_name("reg.test/old/app:1", REWRITING)) == "reg.test/old/app:1"
    assert str(parse_client_name("nginx", REWRITING)) == "docker.io/library/nginx:latest"


def test_an_image_is_pulled_by_a_name_that_leads_to_it() -> None:
    settings = rewriting({"team": "team/prod"})
    assert pull_name("reg.test/team/prod/app:1", settings) == "reg.test/team/app:1"
    assert pull_name(f"reg.test/other/app@{DIGEST}", settings) == f"reg.test/other/app@{DIGEST}"


def test_a_pattern_without_wildcards_in_the_repository_is_a_name() -> None:
    """Other patterns match the names at the upstream."""

    def covers(pattern: str, name: str) -> bool:
        target = Manifest(Repository(name), parse_reference("1.0"))
        return parse_image_pattern(pattern, REWRITING).covers(target)

    assert covers("reg.test/old/app:1.*", "reg.test/team/app")
    assert covers("reg.test/old/app", "reg.test/team/app")
    assert covers("reg.test/team/*", "reg.test/team/app")
    assert not covers("reg.test/old/*", "reg.test/team/app")


NAMES = st.lists(st.sampled_from(["a", "b", "library", "team"]), min_size=1, max_size=4).map("/".join)


@given(st.dictionaries(NAMES, NAMES, max_size=4), st.sampled_from(["off", "complete", "redirect"]), NAMES)
def test_clients_have_a_name_for_each_repository_that_they_can_pull(
    rewrite: dict[str, str], short_names: str, name: str
) -> None:
    """A name that leads to itself stays."""
    upstream = UpstreamSettings.model_validate(
        {"url": "http://reg.test", "rewrite": rewrite, "short_names": short_names}
    )
    stored = name_at_upstream(upstream, Repository(name))
    assert name_at_upstream(upstream, name_for_clients(upstream, stored)) == stored
    if stored == Repository(name):
        assert name_for_clients(upstream, stored) == stored


def test_a_mirror_is_asked_for_a_stored_repository_by_a_name_that_leads_to_it() -> None:
    """Also where a rewritten name would be rewritten again; a catalog has no name."""
    shelf = Recorder()
    registry = ask_by_store_names(shelf, rewriting({"team": "team/prod"}))
    for name in ("reg.test/team/prod/app", "reg.test/other/app", "unknown.test/team/prod/app"):
        now(registry.fetch(RegistryRequest(Manifest(Repository(name), parse_reference("1")))))
    now(registry.fetch(RegistryRequest(Catalog(), namespace="reg.test")))
    assert shelf.asked == ["reg.test/team/app", "reg.test/other/app", "unknown.test/team/prod/app", "None"]


@implementer(IRegistry)
@define
class Recorder:
    """A registry that records the repositories that it is asked for."""

    asked: list[str] = field(factory=list)

    async def fetch(self, request: RegistryRequest) -> Answer:
        self.asked.append(str(repository_of(request.target)))
        return json_answer({})
