"""Images that a mirror keeps in sync with a real registry."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from dockmirror.system.times import format_timestamp

from .conftest import MakeChain
from .parts.command import dockmirror
from .parts.images import artifact, image, index, referrers
from .parts.kept import blob_file, holds
from .parts.mirror import Mirror
from .parts.process import wait_until
from .pulls import succeeded

pytestmark = pytest.mark.integration

NAME = "library/synced"
PLACE = f"docker.io/{NAME}"
SYNCS_OFTEN = "from dockmirror.app import sync_runner\nsync_runner.POLL = 0.3\n"
RULE = {
    "upstream": "docker",
    "repositories": [NAME],
    "semver": ">=1 <2",
    "newest": 2,
    "platforms": ["linux/amd64"],
}


def listed(mirror: Mirror, *options: str) -> Any:
    return json.loads(succeeded(dockmirror(mirror, "sync", "--json", *options)))


def run_now(mirror: Mirror) -> str:
    """Have all rules run, and return the time before that."""
    before = format_timestamp(time.time())
    succeeded(dockmirror(mirror, "sync", "--now"))
    return before


def has_ended(mirror: Mirror, since: str) -> bool:
    """Return whether a run that began since then was successful."""
    [rule] = listed(mirror)
    return bool(rule["outcome"] == "done" and rule["started"] >= since)


def is_pinned(mirror: Mirror, since: str, *tags: str) -> bool:
    """Return whether a run that began since then has ended, and pinned exactly these tags."""
    pins = json.loads(succeeded(dockmirror(mirror, "pins", "--json")))
    names = sorted(f"{PLACE}:{tag}" for tag in tags)
    return has_ended(mirror, since) and sorted(each["image"] for each in pins) == names


def test_images_follow_the_registry(chains: MakeChain) -> None:
    """The newest versions are there without a client's pull, for one platform, with their signatures."""
    pushed = {version: index(version) for version in ("1.0.0", "1.1.0", "1.2.0", "2.0.0")}
    with chains(sync=[RULE], tag_ttl=0, patched=SYNCS_OFTEN) as chain:
        mirror, registry = chain.mirror, chain.registry
        for version in ("1.0.0", "1.1.0", "2.0.0"):
            registry.push(NAME, pushed[version], version)
        signature = artifact("signature", pushed["1.1.0"])
        registry.push(NAME, signature)
        tag, referring = referrers(pushed["1.1.0"], signature)
        registry.push(NAME, referring, tag)
        attestation = artifact("attestation")
        registry.push(NAME, attestation, f"{pushed['1.0.0'].digest.replace(':', '-')}.att")
        began = run_now(mirror)
        wait_until(lambda: is_pinned(mirror, began, "1.0.0", "1.1.0"), "the first versions are pinned")
        amd, *others = pushed["1.1.0"].children
        assert all(holds(mirror.cache, PLACE, each) for each in (amd, signature, attestation))
        assert not any(blob_file(mirror.cache, each.digest).exists() for each in others)

        registry.push(NAME, pushed["1.2.0"], "1.2.0")
        [plan] = listed(mirror, "--dry-run")
        assert (plan["pull"], plan["keep"], plan["unpin"]) == (
            [f"{PLACE}:1.2.0"], [f"{PLACE}:1.1.0"], [f"{PLACE}:1.0.0"]
        )  # fmt: skip
        assert is_pinned(mirror, began, "1.0.0", "1.1.0")
        again = run_now(mirror)
        wait_until(lambda: is_pinned(mirror, again, "1.1.0", "1.2.0"), "the newer version is pinned")
        newest = pushed["1.2.0"]
        with chain.upstream_stopped():
            client = mirror.client("docker")
            assert client.manifest(NAME, "1.2.0").body == newest.manifest.data
            for blob in newest.children[0].blobs:
                assert client.blob(NAME, blob.digest).status == 200


def test_a_moved_tag_is_pulled_again(chains: MakeChain) -> None:
    """A registry without a catalog for the mirror is reported, and the other rules are run."""
    rules = [{"upstream": "docker", "repositories": [each]} for each in (NAME, "library/*")]
    with chains(sync=rules, tag_ttl=0, patched=SYNCS_OFTEN) as chain:
        mirror = chain.mirror
        for each in (image("first"), image("second")):
            chain.registry.push(NAME, each, "latest")
            run_now(mirror)
            wait_until(lambda pushed=each: holds(mirror.cache, PLACE, pushed), "the image is held")  # type: ignore[misc]
        rules_run: list[Any] = []

        def is_over() -> bool:
            rules_run[:] = listed(mirror)
            return all(rule["ended"] for rule in rules_run)

        wait_until(is_over, "both rules have been run")
        named, refused = rules_run
        assert (refused["outcome"], refused["pinned"]) == ("failed", [])
        assert refused["message"]
        assert named["pinned"] == [f"{PLACE}:latest"]


def test_a_rewritten_image_is_pinned_by_its_name_at_the_upstream(chains: MakeChain) -> None:
    """A rule may name it as clients do; a name that would be rewritten once more is asked for as it is."""
    rule = {**RULE, "repositories": ["public/synced"]}
    upstream = {"rewrite": {"public": "public/prod", "old": "library"}}
    with chains(sync=[rule], tag_ttl=0, patched=SYNCS_OFTEN, upstream=upstream) as chain:
        mirror, registry = chain.mirror, chain.registry
        pushed = index("rewritten")
        registry.push("public/prod/synced", pushed, "1.0.0")
        registry.push(NAME, index("pinned"), "1.0.0")
        began = run_now(mirror)
        place = "docker.io/public/prod/synced"
        wait_until(lambda: has_ended(mirror, began), "the rule was run")
        [pin] = json.loads(succeeded(dockmirror(mirror, "pins", "--json")))
        assert pin["image"] == f"{place}:1.0.0"
        assert holds(mirror.cache, place, pushed.children[0])
        succeeded(dockmirror(mirror, "warm", "old/synced:1.0.0"))
        succeeded(dockmirror(mirror, "pin", "old/synced:1.0.0"))
        pins = json.loads(succeeded(dockmirror(mirror, "pins", "--json")))
        assert {each["image"] for each in pins} == {f"{place}:1.0.0", f"{PLACE}:1.0.0"}
        [plan] = listed(mirror, "--dry-run")
        assert (plan["keep"], plan["error"]) == ([f"{place}:1.0.0"], None)
