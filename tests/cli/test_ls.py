"""Tests of ``dockmirror ls`` and ``dockmirror usage``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dockmirror.oci.digest import Digest
from dockmirror.status.status_values import RegistryUsage
from dockmirror.store.usage_report import measure_usage

from ..archive.packing import manifest
from .shop import AMD, BASE, CONFIG, INDEX, LAYER, NGINX, OTHER, Shop


def test_tags_and_untagged_images_are_listed(shop: Shop) -> None:
    """Complete platforms are listed, and each layer counts once."""
    listed = {(each["repository"], each["tag"]): each for each in shop.json("ls")}
    assert set(listed) == {(str(NGINX), "latest"), (str(NGINX), "1.27"), (str(OTHER), None)}
    latest, one = listed[str(NGINX), "latest"], listed[str(NGINX), "1.27"]
    assert (latest["complete"], latest["platforms"]) == (False, {"linux/amd64": True, "linux/arm64": False})
    assert (one["complete"], one["platforms"], one["digest"]) == (True, {}, str(Digest.of(AMD)))
    assert one["size"] == len(AMD + BASE + CONFIG + LAYER)
    assert latest["size"] == one["size"] + len(INDEX)
    assert latest["used"] == "2026-09-21T14:13:20Z"


def test_a_pattern_selects_repositories(shop: Shop) -> None:
    """Only matching repositories are listed."""
    assert {each["repository"] for each in shop.json("ls", "ghcr.io/*")} == {str(OTHER)}
    assert {each["repository"] for each in shop.json("ls", "nginx")} == {str(NGINX)}
    assert shop.json("ls", "nothing") == []


def test_the_table_fits_into_80_columns(shop: Shop) -> None:
    """The table for people is no wider than a terminal."""
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
    told = [
        RegistryUsage(name, each["size"], each["shared"], each["contents"])
        for name, each in usage["registries"].items()
    ]
    assert set(told) == set(measure_usage(shop.root, 0.0).registries), "the status page tells another"
    lines = shop.run("usage").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("budget (cache_size)") for line in lines)


def test_without_a_cache_every_command_fails(tmp_path: Path) -> None:
    """No command creates a cache."""
    shop = Shop(tmp_path / "made")
    shop.root = tmp_path / "missing"
    for command in (["ls"], ["usage"], ["rm", "-y", "a"], ["verify"], ["gc"], ["export", "a", "-o", "-"]):
        assert "there is no cache in" in shop.run(*command, code=1).output
    assert not shop.root.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_the_cache_of_another_user_is_reported_in_one_line(tmp_path: Path) -> None:
    """Only its owner may read it."""
    shop = Shop(tmp_path / "cache")
    os.seteuid(65534)
    try:
        told = shop.run("ls", code=1).output
    finally:
        os.seteuid(0)
    assert "only its owner may read" in told
