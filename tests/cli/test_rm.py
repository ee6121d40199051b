"""Tests of ``dockmirror rm``, ``verify`` and ``gc``."""

from __future__ import annotations

import os

from dockmirror.interfaces import ContentKind
from dockmirror.oci.digest import Digest
from dockmirror.store import content_files, layout

from ..archive.packing import manifest
from .shop import AMD, BASE, CONFIG, LAYER, NGINX, OTHER, USED, Shop


def tags(shop: Shop) -> list[str]:
    """Return the tags in the store."""
    return [each["tag"] for each in shop.json("ls") if each["tag"]]


def test_a_tag_is_deleted_after_a_question(shop: Shop) -> None:
    """Contents that other images need stay."""
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


def test_a_pinned_image_is_fetched_again(shop: Shop) -> None:
    """The command says so before it deletes the image."""
    shop.run("pin", "nginx:1.27", "nginx")
    told = shop.run("rm", "--yes", "nginx:1.27").output
    assert f"{NGINX}:1.27 is pinned and will be fetched again" in told
    assert "latest is pinned" not in told


def test_a_digest_is_deleted_from_every_repository(shop: Shop) -> None:
    """With a name it is deleted from that repository only."""
    digest = str(Digest.of(manifest(CONFIG, BASE)))
    assert "is not in the cache" in shop.run("rm", "--yes", f"nginx@{digest}", code=1).output
    shop.run("rm", "--yes", digest)
    assert {each["repository"] for each in shop.json("ls")} == {str(NGINX)}
    assert (shop.root / layout.REPOSITORIES / OTHER.name).exists() is False


def test_nothing_is_deleted_when_one_image_is_missing(shop: Shop) -> None:
    """The same holds for an invalid name."""
    shop.run("rm", "--yes", "nginx:1.27", "nginx:0", code=1)
    shop.run("rm", "--yes", "nginx:1.27", "No Image", code=2)
    assert tags(shop) == ["1.27", "latest"]


def test_verify_reports_corrupt_contents_and_repairs_them(shop: Shop) -> None:
    """The report names the repositories; ``--repair`` deletes the contents."""
    assert "0 corrupt" in shop.run("verify").output
    shop.path(Digest.of(BASE)).write_bytes(b"other")
    found = shop.json("verify", code=1)
    assert found["corrupt"] == [
        {"digest": str(Digest.of(BASE)), "why": "digest mismatch", "repositories": [str(NGINX), str(OTHER)]}
    ]
    assert str(OTHER) in shop.run("verify", code=1).output
    assert shop.json("verify", "--repair")["deleted"] == 1
    assert shop.json("verify")["corrupt"] == []
    assert not shop.path(Digest.of(BASE)).exists()


def test_gc_deletes_unreferenced_contents_and_abandoned_downloads(shop: Shop) -> None:
    """Contents in use stay."""
    adrift = shop.blob(OTHER, b"adrift")
    content_files.remove_link(shop.root / layout.link(OTHER, adrift, ContentKind.BLOB), shop.root)
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


def test_gc_deletes_contents_over_the_budget(shop: Shop) -> None:
    """It deletes as much as the mirror would, and as ``--dry-run`` shows."""
    small = shop.root.parent / "small.toml"
    small.write_text(f'cache = "{shop.root}"\ncache_size = "2kB"\nmin_free = "0B"\n')
    foreseen = shop.json("-c", str(small), "gc", "--dry-run")
    assert tags(shop) == ["1.27", "latest"]
    gone = shop.json("-c", str(small), "gc")
    assert gone["over the budget"] == foreseen["over the budget"]
    assert gone["over the budget"]["contents"] > 0
    assert tags(shop) == []


def test_a_manifest_is_deleted_with_its_last_tag(shop: Shop) -> None:
    """The last two tags may be deleted by one command."""
    other = manifest(LAYER)
    shop.image(OTHER, "one", other, LAYER)
    shop.image(OTHER, "two", other)
    shop.run("rm", "--yes", f"{OTHER}:one", f"{OTHER}:two")
    assert not shop.path(Digest.of(other)).exists()
