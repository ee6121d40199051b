"""Tags: fresh for their time to live, then validated by HEAD, and removed with the upstream's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .conftest import MakeChain
from .parts.accounts import ALICE, BOB
from .parts.chain import Chain
from .parts.images import Image, image
from .parts.kept import holds
from .parts.plain import Response
from .parts.process import wait_until

pytestmark = pytest.mark.integration

NAME, FRESH = "library/tagged", "library/fresh"
TTL = {FRESH: 3600, "private/*": 3600, "**": 0}
REFRESHES_EARLY = """
from dockmirror.pullthrough import tag_refresh
tag_refresh.EARLIEST = tag_refresh.LATEST = 0.02
"""


@pytest.fixture(scope="module")
def tagging(chains: MakeChain) -> Iterator[Chain]:
    """A mirror whose tags are fresh for an hour in one repository, and stale at once in others."""
    with chains(upstream={"tag_ttl": TTL}) as chain:
        yield chain


def test_moved(tagging: Chain) -> None:
    """A tag that was moved upstream names the old image within its time to live, and the new one after it."""
    old, new = image("the old"), image("the new")
    for name in (FRESH, NAME):
        tagging.registry.push(name, old, "moved")
        assert _pull(tagging, "moved", name).body == old.manifest.data
        tagging.registry.push(name, new, "moved")
    asked = tagging.asked()
    answer = _pull(tagging, "moved", FRESH)
    assert (answer.body, answer.headers["Cache-Status"]) == (old.manifest.data, "dockmirror; hit")
    assert tagging.asked() == asked
    assert _pull(tagging, "moved").body == new.manifest.data


def test_confirmed(tagging: Chain) -> None:
    """After its time to live a tag that has not moved costs one HEAD, however many clients ask."""
    pushed = image("confirmed")
    tagging.registry.push(NAME, pushed, "confirmed")
    assert _pull(tagging, "confirmed").body == pushed.manifest.data
    before = len(tagging.front.requests)
    answer = _pull(tagging, "confirmed")
    assert answer.body == pushed.manifest.data
    assert answer.headers["Cache-Status"] == "dockmirror; fwd=stale; detail=confirmed"
    assert answer.headers["Age"] == "0"
    assert [(each.method, each.status) for each in tagging.front.requests[before:]] == [("HEAD", 304)]


def test_no_cache(tagging: Chain) -> None:
    """A client that says ``no-cache`` gets what the tag names now, however fresh the tag is."""
    tagging.registry.push(FRESH, image("before"), "demanded")
    assert _pull(tagging, "demanded", FRESH).status == 200
    new = image("after")
    tagging.registry.push(FRESH, new, "demanded")
    path = f"/v2/docker.io/{FRESH}/manifests/demanded"
    answer = tagging.mirror.client().request("GET", path, headers={"Cache-Control": "no-cache"})
    assert answer.body == new.manifest.data


def test_stale_while_revalidate(chains: MakeChain) -> None:
    """A stale tag is served as it was while the mirror asks what it names now, and then as it is."""
    old, new = image("stale"), image("revalidated")
    upstream = {"tag_ttl": 0, "stale_while_revalidate": 3600}
    with chains(upstream=upstream, workers=2) as chain:
        chain.registry.push(NAME, old, "latest")
        assert _pull(chain, "latest").body == old.manifest.data
        chain.registry.push(NAME, new, "latest")
        answer = _pull(chain, "latest")
        assert answer.body == old.manifest.data
        assert answer.headers["Cache-Status"] == "dockmirror; hit; detail=stale-while-revalidate"
        wait_until(lambda: _pull(chain, "latest").body == new.manifest.data, "the tag is revalidated")
        assert {_pull(chain, "latest").body for _ in range(10)} == {new.manifest.data}


def test_refresh_ahead(chains: MakeChain) -> None:
    """A tag that is asked for again is confirmed without another request of a client, and stays fresh."""
    with chains(upstream={"tag_ttl": 100}, patched=REFRESHES_EARLY) as chain:
        chain.registry.push(NAME, image("in use"), "latest")
        assert _pull(chain, "latest").status == 200
        asked = len(chain.front.requests)
        assert _pull(chain, "latest").headers["Cache-Status"] == "dockmirror; hit"
        wait_until(lambda: len(chain.front.requests) > asked, "the tag is refreshed")
        assert [(each.method, each.status) for each in chain.front.requests[asked:]] == [("HEAD", 304)]
        assert _pull(chain, "latest").headers["Cache-Status"] == "dockmirror; hit"


def test_strangers_cannot_purge(tagging: Chain) -> None:
    """A client without a right to an image cannot remove it from the cache."""
    pushed = image("alice's tag")
    tagging.registry.push("private/tagged", pushed, "latest")
    assert tagging.mirror.client("docker", ALICE).manifest("private/tagged", "latest").status == 200
    for stranger in (tagging.mirror.client("docker"), tagging.mirror.client("docker", BOB)):
        assert stranger.manifest("private/tagged", "latest").status in (401, 403, 404)
    before = len(tagging.front.requests)
    again = tagging.mirror.client("docker", ALICE).manifest("private/tagged", "latest")
    assert again.body == pushed.manifest.data
    assert "GET" not in {each.method for each in tagging.front.requests[before:] if each.status == 200}


def test_deleted(tagging: Chain) -> None:
    """A tag deleted upstream is 404 after its time to live."""
    _delete_held(tagging, "deleted")
    assert _pull(tagging, "deleted").status == 404
    with tagging.front.stopped():
        assert _pull(tagging, "deleted").status == 502


def test_deleted_and_kept(tagging: Chain) -> None:
    """With ``keep_deleted_upstream`` a tag deleted upstream is served on, and the answer says so."""
    tagging.mirror.stop()
    tagging.mirror.configure(keep_deleted_upstream=True)
    tagging.mirror.start()
    pushed = _delete_held(tagging, "vanished")
    answer = _pull(tagging, "vanished")
    assert (answer.status, answer.body) == (200, pushed.manifest.data)
    assert answer.headers["Cache-Status"] == "dockmirror; fwd=stale; detail=upstream"
    assert answer.headers["Warning"].startswith('299 - "served stale: ')
    for content in pushed.blobs:
        assert tagging.mirror.client().blob(f"docker.io/{NAME}", content.digest).body == content.data


def _pull(chain: Chain, tag: str, name: str = NAME) -> Response:
    return chain.mirror.client().manifest(f"docker.io/{name}", tag)


def _delete_held(chain: Chain, tag: str) -> Image:
    """An image that the mirror holds whole, and that is no longer upstream."""
    pushed = image(tag)
    chain.registry.push(NAME, pushed, tag)
    assert _pull(chain, tag).status == 200
    for content in pushed.blobs:
        assert chain.mirror.client().blob(f"docker.io/{NAME}", content.digest).body == content.data
    wait_until(lambda: holds(chain.mirror.cache, f"docker.io/{NAME}", pushed), "the image is held")
    deleted = chain.registry.plain.request("DELETE", f"/v2/{NAME}/manifests/{pushed.digest}")
    assert deleted.status == 202
    return pushed
