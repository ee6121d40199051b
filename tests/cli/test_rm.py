"""``dockmirror rm``, ``verify`` and ``gc``."""

from __future__ import annotations

import os

from dockmirror.interfaces import ContentKind
from dockmirror.oci.digest import Digest
from dockmirror.store import layout, links

from ..archive.packing import manifest
from .shop import AMD, BASE, CONFIG, LAYER, NGINX, OTHER, USED, Shop


def tags(shop: Shop) -> list[str]:
    """What is held by tag."""
    return [each["tag"] for each in shop.json("ls") if each["tag"]]


def test_a_tag(shop: Shop) -> None:
    """Goes after a question; what others need stays."""
    asked = shop.run("rm", "nginx", code=1, input="n\n")
    assert "the tag latest" in asked.output
    assert tags(shop) == ["1.27", "latest"]
    shop.run("rm", "nginx", input="y\n")
    assert tags(shop) == ["1.27"]
    shop.run("rm", "--yes", "nginx:1.27")
    assert [shop.path(Digest.of(data)).exists() for data in (AMD, LAYER, BASE, CONFIG)] == [
        False,
        False,
        True,
        True,
    ]


def test_what_is_pinned(shop: Shop) -> None:
    """Comes back, which is said before it goes."""
    shop.run("pin", "nginx:1.27", "nginx")
    told = shop.run("rm", "--yes", "nginx:1.27").output
    assert f"{NGINX}:1.27 is pinned, and will be fetched again" in told
    assert "latest is pinned" not in told


def test_a_digest(shop: Shop) -> None:
    """Goes from every repository, or from the one that is named."""
    digest = str(Digest.of(manifest(CONFIG, BASE)))
    assert "is not held" in shop.run("rm", "--yes", f"nginx@{digest}", code=1).output
    shop.run("rm", "--yes", digest)
    assert {each["repository"] for each in shop.json("ls")} == {str(NGINX)}
    assert (shop.root / layout.REPOSITORIES / OTHER.name).exists() is False


def test_all_or_nothing(shop: Shop) -> None:
    """Where one is not held, or no name, none goes."""
    shop.run("rm", "--yes", "nginx:1.27", "nginx:0", code=1)
    shop.run("rm", "--yes", "nginx:1.27", "No Image", code=2)
    assert tags(shop) == ["1.27", "latest"]


def test_verify(shop: Shop) -> None:
    """Tells what is wrong and where, and drops it when it is told to."""
    assert "0 wrong" in shop.run("verify").output
    shop.path(Digest.of(BASE)).write_bytes(b"other")
    found = shop.json("verify", code=1)
    assert found["wrong"] == [
        {"digest": str(Digest.of(BASE)), "why": "digest mismatch", "repositories": [str(NGINX), str(OTHER)]}
    ]
    assert str(OTHER) in shop.run("verify", code=1).output
    assert shop.json("verify", "--repair")["dropped"] == 1
    assert shop.json("verify")["wrong"] == []
    assert not shop.path(Digest.of(BASE)).exists()


def test_gc(shop: Shop) -> None:
    """Deletes what no repository has and what nobody will finish; what is of use stays."""
    adrift = shop.blob(OTHER, b"adrift")
    links.remove_link(shop.root / layout.link(OTHER, adrift, ContentKind.BLOB), shop.root)
    part = shop.root / layout.growing("docker.io", adrift)
    part.parent.mkdir(parents=True)
    part.write_bytes(b"adr")
    os.utime(part, (USED - 10**8, USED - 10**8))
    for dry in (["--dry-run"], []):
        assert part.exists()
        found = shop.json("gc", *dry)
        assert (found["leftovers"], found["of no repository"]) == (1, {"contents": 1, "bytes": 6})
        assert found["over the budget"]["contents"] == 0
    assert not part.exists()
    assert not shop.path(adrift).exists()
    assert tags(shop) == ["1.27", "latest"]


def test_over_the_budget(shop: Shop) -> None:
    """As much goes as the mirror would let go, and as was told before."""
    small = shop.root.parent / "small.toml"
    small.write_text(f'cache = "{shop.root}"\ncache_size = "2kB"\nmin_free = "0B"\n')
    foreseen = shop.json("-c", str(small), "gc", "--dry-run")
    assert tags(shop) == ["1.27", "latest"]
    gone = shop.json("-c", str(small), "gc")
    assert gone["over the budget"] == foreseen["over the budget"]
    assert gone["over the budget"]["contents"] > 0
    assert tags(shop) == []


def test_both_tags_of_one(shop: Shop) -> None:
    """Take its manifest with them, also when they go together."""
    other = manifest(LAYER)
    shop.image(OTHER, "one", other, LAYER)
    shop.image(OTHER, "two", other)
    shop.run("rm", "--yes", f"{OTHER}:one", f"{OTHER}:two")
    assert not shop.path(Digest.of(other)).exists()
