"""Tests of the commands for images in the cache: ``ls``, ``usage``, ``rm``, ``verify``, ``gc`` and pins."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from dockmirror.interfaces import ContentKind
from dockmirror.oci.digest import Digest
from dockmirror.oci.request import Repository, Tag
from dockmirror.status import RegistryUsage
from dockmirror.store import layout, store_files
from dockmirror.store.pins import Pin, add_pin
from dockmirror.store.store_index import StoreIndex, measure_usage

from ..archive.packing import manifest
from .shop import AMD, BASE, CONFIG, INDEX, LAYER, NGINX, OTHER, USED, Shop


def test_tags_and_untagged_images_are_listed(shop: Shop) -> None:
    listed = {(each["repository"], each["tag"]): each for each in shop.json("ls")}
    assert set(listed) == {(str(NGINX), "latest"), (str(NGINX), "1.27"), (str(OTHER), None)}
    latest, one = listed[str(NGINX), "latest"], listed[str(NGINX), "1.27"]
    assert (latest["complete"], latest["platforms"]) == (False, {"linux/amd64": True, "linux/arm64": False})
    assert (one["complete"], one["platforms"], one["digest"]) == (True, {}, str(Digest.of(AMD)))
    assert one["size"] == len(AMD + BASE + CONFIG + LAYER)
    assert latest["size"] == one["size"] + len(INDEX)
    assert latest["used"] == "2026-09-21T14:13:20.000+00:00"


def test_a_pattern_selects_repositories(shop: Shop) -> None:
    assert {each["repository"] for each in shop.json("ls", "ghcr.io/*")} == {str(OTHER)}
    assert {each["repository"] for each in shop.json("ls", "nginx")} == {str(NGINX)}
    assert shop.json("ls", "nothing") == []
    for pattern in ("nginx:1.*", "docker.io/library/nginx:1.27", "*:1.27"):
        assert {(each["repository"], each["tag"]) for each in shop.json("ls", pattern)} == {
            (str(NGINX), "1.27")
        }


def test_the_table_fits_into_80_columns(shop: Shop) -> None:
    lines = shop.run("ls").stdout.splitlines()
    assert lines[0].split() == ["repository", "tag", "size", "complete", "last", "used"]
    assert lines[1].split()[:2] == [str(NGINX), "1.27"]
    assert any("amd64 of 2" in line for line in lines)
    assert max(map(len, lines)) <= 80


def test_shared_contents_count_once_in_the_total(shop: Shop) -> None:
    """They count in each repository too, as shared."""
    usage = shop.json("usage")
    shared = len(CONFIG + BASE)
    hub, other = usage["registries"]["docker.io"], usage["repositories"][str(OTHER)]
    assert hub["size"] == len(INDEX + AMD + BASE + CONFIG + LAYER)
    assert (hub["shared"], other["shared"]) == (shared, shared)
    assert other["size"] == shared + len(manifest(CONFIG, BASE))
    assert usage["totals"]["contents"] == hub["size"] + other["size"] - shared
    assert usage["totals"]["of no repository"] == 0
    usages = [
        RegistryUsage(name, each["size"], each["shared"], each["contents"])
        for name, each in usage["registries"].items()
    ]
    assert set(usages) == set(measure_usage(StoreIndex(shop.root), 0.0).registries), (
        "the status page tells another"
    )
    lines = shop.run("usage").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("budget (cache_size)") for line in lines)


def test_without_a_cache_every_command_fails(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "made")
    shop.root = tmp_path / "missing"
    for command in (["ls"], ["usage"], ["rm", "-y", "a"], ["verify"], ["gc"], ["export", "a", "-o", "-"]):
        assert "there is no cache in" in shop.run(*command, code=1).output
    assert not shop.root.exists()


def test_no_command_touches_the_cache_of_a_newer_version(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    (tmp_path / layout.FORMAT).write_text("2")
    for command in (["ls"], ["rm", "-y", "a"], ["verify"], ["gc"], ["usage"], ["pins"]):
        assert "cannot be used: it has format '2' of a newer dockmirror" in shop.run(*command, code=1).output


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_the_cache_of_another_user_is_reported_in_one_line(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "cache")
    os.seteuid(65534)
    try:
        output = shop.run("ls", code=1).output
    finally:
        os.seteuid(0)
    assert "only its owner may read" in output


def tags(shop: Shop) -> list[str]:
    """Return the tags in the store."""
    return [each["tag"] for each in shop.json("ls") if each["tag"]]


def test_a_tag_is_deleted_after_a_question(shop: Shop) -> None:
    """Contents that other images need stay."""
    question = shop.run("rm", "nginx", code=1, input="n\n")
    assert "the tag latest" in question.output
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
    shop.run("pin", "nginx:1.27", "nginx")
    output = shop.run("rm", "--yes", "nginx:1.27").output
    assert f"{NGINX}:1.27 is pinned and will be fetched again" in output
    assert "latest is pinned" not in output


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
    store_files.remove_link(shop.root / layout.link(OTHER, adrift, ContentKind.BLOB), shop.root)
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
    small = shop.root.parent / "small.toml"
    small.write_text(f'cache = "{shop.root}"\ncache_size = "2kB"\nmin_free = "0B"\n')
    foreseen = shop.json("-c", str(small), "gc", "--dry-run")
    assert tags(shop) == ["1.27", "latest"]
    gone = shop.json("-c", str(small), "gc")
    assert gone["over the budget"] == foreseen["over the budget"]
    assert gone["over the budget"]["contents"] > 0
    assert tags(shop) == []


def test_gc_says_why_contents_over_the_budget_stay(shop: Shop) -> None:
    os.utime(shop.path(Digest.of(LAYER)))
    environ = {"DOCKMIRROR_CACHE_SIZE": "1kB"}
    for dry in (["--dry-run"], []):
        assert (
            "4.0 kB over the budget stay: used in the last two minutes\n"
            in shop.run("gc", *dry, environ=environ).stdout
        )
    found = shop.run("gc", "--json", environ=environ).stdout
    assert json.loads(found)["staying"]["used in the last two minutes"] == len(LAYER)
    assert "stay" not in shop.run("gc").stdout
    free = {"DOCKMIRROR_MIN_FREE": "1000TB"}
    assert "what stays in the cache: used in the last two minutes\n" in shop.run("gc", environ=free).stdout


def test_a_manifest_is_deleted_with_its_last_tag(shop: Shop) -> None:
    other = manifest(LAYER)
    shop.image(OTHER, "one", other, LAYER)
    shop.image(OTHER, "two", other)
    shop.run("rm", "--yes", f"{OTHER}:one", f"{OTHER}:two")
    assert not shop.path(Digest.of(other)).exists()


def test_an_image_is_pinned_until_it_is_unpinned(shop: Shop) -> None:
    """Any form of the name works, and the image need not be in the cache."""
    assert "no image is pinned" in shop.run("pins").stderr
    shop.run("pin", "nginx", "docker.io/library/debian:12", "--platform", "linux/amd64")
    shop.run("pin", f"nginx@{Digest.of(AMD)}")
    assert [(each["image"], each["platforms"]) for each in shop.json("pins")] == [
        ("docker.io/library/debian:12", ["linux/amd64"]),
        ("docker.io/library/nginx:latest", ["linux/amd64"]),
        (f"docker.io/library/nginx@{Digest.of(AMD)}", []),
    ]
    assert shop.run("unpin", "docker.io/nginx:latest", "debian:12").stdout.splitlines() == [
        "docker.io/library/nginx:latest is not pinned any more",
        "docker.io/library/debian:12 is not pinned any more",
    ]
    assert len(shop.json("pins")) == 1


def test_pins_show_when_each_was_refreshed(shop: Shop) -> None:
    shop.run("pin", "nginx")
    assert shop.json("pins")[0]["refreshed"] is None
    assert "not yet" in shop.run("pins").output
    for path in (shop.root / layout.PINS).iterdir():
        os.utime(path, (USED, USED))
    assert shop.json("pins")[0]["refreshed"] == "2026-09-21T14:13:20.000+00:00"


def test_invalid_names_and_unknown_pins_are_refused(shop: Shop) -> None:
    """The other images of the same command are unpinned nevertheless."""
    shop.run("pin", "Nginx", code=2)
    shop.run("pin", "nginx", "--platform", "linux", code=2)
    refused = shop.run("pin", "nginx", "nope.example.com/x:1", code=2).output
    assert "this mirror has no registry nope.example.com" in refused
    assert shop.json("pins") == []
    shop.run("pin", "nginx")
    assert "debian:latest: not pinned" in shop.run("unpin", "debian", "nginx", code=1).output
    assert shop.json("pins") == []


def test_a_pinned_image_is_not_evicted(shop: Shop) -> None:
    shop.run("pin", "nginx:1.27")
    printed = shop.run("gc", environ={"DOCKMIRROR_CACHE_SIZE": "1B"}).stdout
    assert "kB over the budget stay: pinned" in printed
    assert not shop.path(Digest.of(INDEX)).exists()
    assert shop.path(Digest.of(AMD)).exists()


@pytest.fixture
def rewritten(shop: Shop, tmp_path: Path) -> Shop:
    """Return a store of an upstream whose clients say ``old`` for ``team``, with an image."""
    file = tmp_path / "dockmirror.toml"
    file.write_text('[upstreams.own]\nurl = "http://reg.test"\nrewrite = {"old" = "team"}\n')
    shop.image(Repository("reg.test/team/app"), "1.0", AMD, BASE, CONFIG, LAYER)
    shop.environ["DOCKMIRROR_CONFIG"] = str(file)
    return shop


@pytest.mark.parametrize("name", ["reg.test/old/app:1.0", "reg.test/team/app:1.0"])
def test_a_rewritten_image_is_pinned_as_it_is_stored(rewritten: Shop, name: str) -> None:
    """The clients' name and the upstream's mean the same image, which the output names."""
    said = rewritten.run("pin", name)
    assert "reg.test/team/app:1.0 is pinned" in said.stdout
    assert ("reg.test/old/app:1.0 is reg.test/team/app:1.0 at its upstream" in said.stderr) == ("old" in name)
    rewritten.run("gc", environ={"DOCKMIRROR_CACHE_SIZE": "1B"})
    assert "reg.test/team/app" in rewritten.run("ls").stdout
    rewritten.run("unpin", name)
    assert rewritten.json("pins") == []


def test_a_pin_from_before_a_rewriting_can_be_removed(rewritten: Shop) -> None:
    add_pin(rewritten.root, Pin(Repository("reg.test/old/app"), Tag("1.0")))
    rewritten.run("unpin", "reg.test/old/app:1.0")
    assert rewritten.json("pins") == []
    assert (
        "reg.test/team/app:1.0: not pinned" in rewritten.run("unpin", "reg.test/old/app:1.0", code=1).stderr
    )


def test_a_rewritten_image_is_deleted_by_its_clients_name(rewritten: Shop) -> None:
    rewritten.run("rm", "-y", "reg.test/old/app:1.0")
    assert "reg.test" not in rewritten.run("ls").stdout
    missing = rewritten.run("rm", "-y", "reg.test/old/app:1.0", code=1)
    assert "reg.test/old/app:1.0 is not in the cache" in missing.stderr


def test_a_rewritten_repository_is_listed_by_its_clients_name(rewritten: Shop) -> None:
    assert [each["repository"] for each in rewritten.json("ls", "reg.test/old/app")] == ["reg.test/team/app"]


def test_a_rewritten_image_is_exported_tested_and_locked_by_its_clients_name(
    rewritten: Shop, tmp_path: Path
) -> None:
    archive, lock = tmp_path / "app.tar", tmp_path / "app.lock"
    rewritten.run("export", "reg.test/old/app:1.0", "-o", str(archive))
    assert archive.exists()
    (tested,) = rewritten.json("policy", "test", "reg.test/old/app:1.0")
    assert (tested["image"], tested["verdict"]) == ("reg.test/team/app:1.0", "served")
    rewritten.run("lock", "-f", str(lock), "reg.test/old/app:1.0")
    assert "reg.test/team/app:1.0 sha256:" in lock.read_text()
