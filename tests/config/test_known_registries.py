"""The table of well-known registries."""

from __future__ import annotations

from collections import Counter
from urllib.parse import urlsplit

import pytest

from dockmirror.config.known_registries import KNOWN, KnownRegistry
from dockmirror.config.load import load
from dockmirror.config.settings import UpstreamSettings

SEED = {
    "docker": "https://registry-1.docker.io",
    "quay": "https://quay.io",
    "gcr": "https://gcr.io",
    "k8s-gcr": "https://k8s.gcr.io",
    "k8s": "https://registry.k8s.io",
    "ghcr": "https://ghcr.io",
    "cloudsmith": "https://docker.cloudsmith.io",
    "ecr": "https://public.ecr.aws",
    "docker-staging": "https://registry-1.docker.io",
}
BY_NAME = {known.name: known for known in KNOWN}
each = pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.name)


def test_the_seeds_nine_come_first() -> None:
    """In their order, under the names that people know, followed by four more."""
    assert dict(list({known.name: known.url for known in KNOWN}.items())[:9]) == SEED
    assert list(BY_NAME)[9:] == ["mcr", "gitlab", "nvcr", "elastic"]


def test_names_are_given_once() -> None:
    """Each is the label of a host."""
    assert max(Counter(known.name for known in KNOWN).values()) == 1


@each
def test_addresses(known: KnownRegistry) -> None:
    """Are plain origins, encrypted; token services, too."""
    for url in (known.url, *known.realms):
        parts = urlsplit(url)
        assert parts.scheme == "https"
        assert url == f"https://{parts.hostname}"


@each
def test_what_images_begin_with(known: KnownRegistry) -> None:
    """Is a name with a dot in it, as a client tells a registry from a repository, and in lower case."""
    for name in (known.registry, *known.aliases):
        assert "." in name
        assert name == name.lower()
    assert known.registry not in known.aliases


def test_a_registrys_names_are_its_own() -> None:
    """Two entries share them only where they are the same registry, as Docker Hub's are."""
    of: dict[str, str] = {}
    for known in KNOWN:
        for name in (known.registry, *known.aliases):
            assert of.setdefault(name, known.url) == known.url


def test_short_names_are_docker_hubs() -> None:
    """And nobody else's."""
    assert [known.name for known in KNOWN if known.short_names != "off"] == ["docker", "docker-staging"]
    assert {BY_NAME[name].short_names for name in ("docker", "docker-staging")} == {"complete"}


@pytest.mark.parametrize(
    ("name", "realm"),
    [
        ("docker", "https://auth.docker.io"),
        ("docker-staging", "https://auth.docker.io"),
        ("gitlab", "https://gitlab.com"),
        ("elastic", "https://docker-auth.elastic.co"),
        ("nvcr", "https://authn.nvidia.com"),
    ],
)
def test_token_services_on_other_hosts(name: str, realm: str) -> None:
    """Are named; those on the registry's own host need not be."""
    assert BY_NAME[name].realms == (realm,)


@each
def test_the_configuration_takes_it(known: KnownRegistry) -> None:
    """As it stands."""
    assert load({}, {}).upstreams[known.name] == UpstreamSettings(
        url=(known.url,),
        registry=known.registry,
        realms=known.realms,
        aliases=known.aliases,
        short_names=known.short_names,
    )
