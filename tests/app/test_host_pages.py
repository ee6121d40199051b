"""The pages of images on the mirror's own host, as the settings have them."""

# mypy: allow-untyped-calls

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from dockmirror.app.accounts import AccountChoice
from dockmirror.app.cache_stack import HostRegistries
from dockmirror.app.host_pages import Viewers
from dockmirror.config.load import load
from dockmirror.oci.request import Repository
from dockmirror.pullthrough.authorization import Extent, PublicRepositories
from dockmirror.store.local_store import LocalDocumentStore
from tests.house import House
from tests.internet import Internet
from tests.stacks import now
from tests.store.threads import inline

NAME = Repository("team/app")


def test_they_are_there_if_the_operator_wants_them() -> None:
    """And only on the own host."""
    refused = House(Internet()).get("mirror.example", "/images/")
    assert refused.error == (404, "UNSUPPORTED")
    assert "'images' is not set" in refused.message
    assert House(Internet(), images=True).get("k8s.mirror.example", "/images/").status == 404


@pytest.mark.parametrize(
    ("upstream", "everybody", "users"),
    [
        ({}, ["lan"], ["lan"]),
        ({"username": "mirror", "password_file": __file__}, [], ["lan"]),
        ({"accounts": [{"name": "t", "repositories": ["team/*"], "username": "t"}]}, [], ["lan"]),
        ({"accounts": [{"name": "o", "repositories": ["other/*"], "username": "o"}]}, ["lan"], ["lan"]),
        ({"deny": ["team/**"]}, [], []),
        ({"allow": ["other/**"]}, [], []),
        ({"username": "mirror", "password_file": __file__, "deny": ["team/app"]}, [], []),
    ],
)
def test_an_account_and_rules_limit_who_sees_what(
    tmp_path: Path, upstream: dict[str, Any], everybody: list[str], users: list[str]
) -> None:
    """The upstream has given the repository to the mirror."""
    clock = Clock()
    clock.advance(1_700_000_000)
    networks = {"networks": ["127.0.0.0/8"]}
    settings = load({"upstreams": {"lan": {"url": "https://registry.lan", **upstream}}, **networks}, {})
    documents = LocalDocumentStore(tmp_path, clock, inline)
    choice = AccountChoice("lan", settings.upstreams["lan"])
    public = PublicRepositories(choice.cache_partition, documents, clock, lambda _: True)
    now(public.confirm(NAME, Extent.CONTENTS))
    unused: Any = None
    viewers = Viewers(settings, {"lan": HostRegistries(unused, unused, unused, choice, public=public)})
    for is_user, expected in ((False, everybody), (True, users)):
        assert now(viewers.viewer(is_user).sources(f"registry.lan/{NAME}")) == expected
