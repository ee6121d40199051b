"""Scopes of token requests, as clients write them and as the upstream gets them."""

# mypy: allow-untyped-calls

from __future__ import annotations

from urllib.parse import urlencode

import pytest

from tests.fake_registry import basic
from tests.house import House
from tests.internet import AUTH, PASSWORD, USER, Internet

DOCKER = "docker.mirror.example"
LOGIN = f"Authorization: {basic(USER, PASSWORD)}"


@pytest.fixture
def internet() -> Internet:
    """Docker Hub and all others."""
    return Internet()


@pytest.fixture
def house(internet: Internet) -> House:
    """The mirror in front."""
    return House(internet)


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("repository:busybox:pull", ["repository:library/busybox:pull"]),
        ("repository:library/busybox:pull", ["repository:library/busybox:pull"]),
        ("repository:a/b/c:pull,push", ["repository:a/b/c:pull,push"]),
        ("repository(plugin):x:pull", ["repository(plugin):library/x:pull"]),
        ("registry:catalog:*", ["registry:catalog:*"]),
        ("aws", ["aws"]),
        ("repository::pull", ["repository::pull"]),
    ],
)
def test_short_names_are_completed(internet: Internet, house: House, given: str, asked: list[str]) -> None:
    """Names of one component are completed on Docker Hub."""
    assert house.get(DOCKER, f"/v2/auth?{urlencode({'scope': given})}").status == 200
    assert [value for key, value in internet.asked(AUTH)[0].query if key == "scope"] == asked


def test_they_are_left_alone_elsewhere(internet: Internet, house: House) -> None:
    """A name of one component is one."""
    house.get("quay.mirror.example", "/v2/auth?scope=repository:busybox:pull")
    assert ("scope", "repository:busybox:pull") in internet.asked("quay.io")[1].query


def test_from_repeated_parameters_and_from_words(internet: Internet, house: House) -> None:
    """Scopes come from repeated parameters and from words; duplicates are dropped."""
    query = "scope=repository:a:pull+repository:b/c:pull&service=x&scope=repository:library/a:pull"
    house.post(DOCKER, f"/v2/auth?{query}", "scope=repository:d:pull%20repository:a:pull&scope=e:f:g")
    (seen,) = internet.asked(AUTH)
    scopes = "repository:library/a:pull repository:b/c:pull repository:library/d:pull e:f:g"
    assert seen.form == (("service", "registry.docker.io"), ("scope", scopes))
    house.get(DOCKER, f"/v2/auth?{query}")
    assert internet.asked(AUTH)[1].query == (
        ("service", "registry.docker.io"), ("scope", "repository:library/a:pull"),
        ("scope", "repository:b/c:pull"),
    )  # fmt: skip


def test_none(internet: Internet, house: House) -> None:
    """A request without scopes is a login."""
    assert house.get(DOCKER, f"/v2/auth?service={DOCKER}&account={USER}", LOGIN).status == 200
    assert internet.asked(AUTH)[0].query == (("service", "registry.docker.io"), ("account", USER))
