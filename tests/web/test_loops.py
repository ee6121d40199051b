"""Mirrors whose upstreams lead back to them."""

# mypy: allow-untyped-calls

from __future__ import annotations

from typing import Any

import pytest

from tests.chained import serve
from tests.fakes import World
from tests.house import House

HOME, FAR = "docker.home.example", "docker.far.example"
PATH = "/v2/library/busybox/manifests/latest"


def mirror(domain: str, upstream: str) -> House:
    """Return a mirror whose Docker Hub is at another host."""
    upstreams: dict[str, Any] = {"docker": {"url": f"https://{upstream}", "realms": [f"https://{upstream}"]}}
    return House(World(), domain=domain, upstreams=upstreams)


@pytest.fixture
def itself() -> House:
    """A mirror that names itself."""
    house = mirror("home.example", HOME)
    house.world.servers[HOME] = serve(house)
    return house


@pytest.fixture
def each_other() -> tuple[House, House]:
    """Two mirrors that name each other."""
    home, far = mirror("home.example", FAR), mirror("far.example", HOME)
    home.world.servers[FAR], far.world.servers[HOME] = serve(far), serve(home)
    return home, far


@pytest.mark.parametrize(
    ("host", "path"),
    [(HOME, "/v2/"), (HOME, PATH), ("home.example", PATH), (HOME, "/v2/library/busybox/tags/list")],
)
def test_a_mirror_that_names_itself(itself: House, host: str, path: str) -> None:
    """It sends itself at most a request and a ping."""
    answer = itself.get(host, path)
    assert answer.error == (508, "UNSUPPORTED")
    assert "loop" in answer.message
    assert "'url'" in answer.message
    assert len(itself.world.seen) <= 2


@pytest.mark.parametrize(("host", "path"), [(HOME, "/v2/"), (HOME, PATH), ("home.example", PATH)])
def test_mirrors_that_name_each_other(each_other: tuple[House, House], host: str, path: str) -> None:
    """The first one recognizes the request that comes back; the reason reaches the client."""
    home, far = each_other
    answer = home.get(host, path)
    assert answer.error == (508, "UNSUPPORTED")
    assert "loop" in answer.message
    assert len(home.world.seen) <= 2
    assert len(far.world.seen) <= 2


def test_a_token_request_that_comes_back(each_other: tuple[House, House]) -> None:
    home, _ = each_other
    assert home.get(HOME, "/v2/auth?scope=repository:library/busybox:pull").status == 508


def test_one_client_cannot_have_another_ones_request_refused(each_other: tuple[House, House]) -> None:
    """The identifier of a mirror is a secret between the mirror and its upstreams."""
    home, far = each_other
    home.get(HOME, PATH)
    (sent,) = {seen.header("cdn-loop") for seen in home.world.seen}
    assert sent is not None
    assert sent.partition(";")[0] == f"dockmirror-{home.memory.mirror_id}"
    assert home.memory.mirror_id != far.memory.mirror_id
    answer = home.get(HOME, PATH)
    assert not any(home.memory.mirror_id in value for _, value in answer.headers)
    assert home.memory.mirror_id.encode() not in answer.body


def test_the_pull_of_each_mirror_stands_in_the_logs_behind_it() -> None:
    """A client's own ``CDN-Loop`` counts only if a mirror could have written it."""
    branch, head = mirror("home.example", FAR), mirror("far.example", "registry-1.docker.io")
    branch.world.servers[FAR] = serve(head)
    branch.get(HOME, PATH, "CDN-Loop: google, somebody; pull=1")
    (log,) = [line for line in branch.lines if PATH in line]
    pull = log.split()[9]
    assert "via" not in log
    lines = [line for line in head.lines if PATH in line]
    assert lines
    assert all(f" via {pull}" in line for line in lines)
