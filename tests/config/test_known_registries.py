"""Tests of the table of well-known registries."""

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


def test_the_order_of_the_registries() -> None:
    """The first nine have the names that users know."""
    assert dict(list({known.name: known.url for known in KNOWN}.items())[:9]) == SEED
    assert list(BY_NAME)[9:] == ["mcr", "gitlab", "nvcr", "elastic"]


def test_names_are_unique_labels_of_hosts() -> None:
    assert max(Counter(known.name for known in KNOWN).values()) == 1


@each
def test_addresses_are_https_origins(known: KnownRegistry) -> None:
    """The same holds for token services."""
    for url in (known.url, *known.realms):
        parts = urlsplit(url)
        assert parts.scheme == "https"
        assert url == f"https://{parts.hostname}"


@each
def test_registry_names_contain_a_dot(known: KnownRegistry) -> None:
    """Clients tell a registry from a repository by the dot; names are in lower case."""
    for name in (known.registry, *known.aliases):
        assert "." in name
        assert name == name.lower()
    assert known.registry not in known.aliases


def test_registries_share_no_names() -> None:
    """Entries for the same registry, such as Docker Hub's, are the exception."""
    of: dict[str, str] = {}
    for known in KNOWN:
        for name in (known.registry, *known.aliases):
            assert of.setdefault(name, known.url) == known.url


@each
def test_the_settings_accept_each_entry(known: KnownRegistry) -> None:
    assert load({}, {}).upstreams[known.name] == UpstreamSettings(
        url=(known.url,),
        registry=known.registry,
        realms=known.realms,
        aliases=known.aliases,
        short_names=known.short_names,
    )
