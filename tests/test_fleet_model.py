"""The model of a fleet in ``bench/fleet``: what it counts follows from its pulls."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from bench.fleet.model import Design, Outage, Result, run
from bench.fleet.workload import Image, Pull, leave_out_known, make_images, next_version, rollout, steady

MANY = Design(3, 1e6, 1e6, 1e6, bucket=1e6)
IMAGES = make_images(4, 6, 100_000)


def layers_of(*images: Image) -> dict[str, int]:
    return {layer.name: layer.size for image in images for layer in image.layers}


def roll_out(design: Design, *images: Image, nodes: int = 20) -> Result:
    pulls = [pull for n, each in enumerate(images) for pull in rollout(each, range(nodes), n * 1000, 1)]
    return run(design, leave_out_known(pulls))


def test_a_fleet_that_hashes_fetches_each_blob_once() -> None:
    result = roll_out(MANY, *IMAGES)
    blobs = layers_of(*IMAGES)
    assert result.counts["upstream GET blob"] == len(blobs)
    assert result.counts["upstream bytes"] == sum(blobs.values())
    assert result.counts["upstream GET manifest"] == len(IMAGES)
    assert (result.failed, len(result.ended)) == (0, 80)


def test_mirrors_that_share_nothing_fetch_a_copy_each() -> None:
    result = roll_out(evolve(MANY, hashes=False, bucket=None), IMAGES[0], nodes=200)
    assert result.counts["upstream GET blob"] == 3 * len(layers_of(IMAGES[0]))
    assert result.counts["upstream GET manifest"] == 3


@pytest.mark.parametrize("hashes", [False, True])
def test_peers_fetch_each_blob_once(hashes: bool) -> None:
    """Each mirror that needs it fetches it from the one that a hash chooses, with or without a bucket."""
    for bucket in (None, 1e6):
        design = evolve(MANY, hashes=hashes, bound=1.25 if hashes else None, bucket=bucket, peers=True)
        result = roll_out(design, IMAGES[0], nodes=200)
        blobs = len(layers_of(IMAGES[0]))
        assert result.counts["upstream GET blob"] == blobs
        assert 0 < result.counts["peer GET blob"] <= 2 * blobs
        assert (result.failed, len(result.ended)) == (0, 200)


def test_the_next_peer_takes_the_place_of_a_dead_one() -> None:
    design = evolve(MANY, hashes=False, bucket=None, peers=True, outages=[Outage(1, 0, inf)])
    result = roll_out(design, IMAGES[0], nodes=200)
    assert result.counts["upstream GET blob"] == len(layers_of(IMAGES[0]))
    assert (result.failed, result.sent[1]) == (0, 0)


def test_a_bucket_has_what_a_dead_mirror_had() -> None:
    """No blob comes from the upstream again, though it is down, too."""
    sent = roll_out(MANY, IMAGES[0]).sent
    outages = [Outage(sent.index(max(sent)), 500, inf), Outage("upstream", 500, inf)]
    pulls = [*rollout(IMAGES[0], range(5), 0, 1), *rollout(IMAGES[0], range(5, 10), 1000, 1)]
    result = run(evolve(MANY, outages=outages), pulls)
    assert (result.failed, result.counts["upstream GET blob"]) == (0, len(layers_of(IMAGES[0])))
    assert result.counts["bucket GET blob"] > 0
    without = run(evolve(MANY, outages=outages, bucket=None), pulls)
    assert without.failed == 5


def test_a_pull_goes_on_when_its_mirror_dies() -> None:
    result = run(evolve(MANY, outages=[Outage(0, 0.3, inf)]), rollout(IMAGES[0], range(20), 0, 0.1))
    assert (result.failed, len(result.ended)) == (0, 20)
    assert result.sent[0] < sum(result.sent) / 3


def test_a_moved_tag_costs_its_new_layers_only() -> None:
    moved = next_version(IMAGES[0])
    result = roll_out(MANY, IMAGES[0], moved)
    assert result.counts["upstream GET manifest"] == 2
    assert result.counts["upstream GET blob"] == len(layers_of(IMAGES[0], moved))


@pytest.mark.parametrize(("limit", "failed"), [(4, 0), (3, 20), (None, 0)])
def test_pulls_beyond_the_upstreams_limit_fail(limit: int | None, failed: int) -> None:
    assert roll_out(evolve(MANY, limit=limit), *IMAGES).failed == failed


def test_a_small_disk_fetches_again_from_the_bucket() -> None:
    pulls = [
        *rollout(IMAGES[0], [0], 0, 0),
        *rollout(IMAGES[1], [0], 100, 0),
        *rollout(IMAGES[0], [1], 200, 0),
    ]
    result = run(evolve(MANY, mirrors=1, disk=1), pulls)
    assert result.counts["bucket GET blob"] >= len(IMAGES[0].layers) - 1
    assert result.counts["upstream GET blob"] == len(layers_of(*IMAGES[:2]))


def test_the_slowest_line_sets_the_time() -> None:
    """A rollout to 100 machines, through a balancer that is slower than three mirrors."""
    size = IMAGES[0].size
    for balancer, line, rate in ((1e6, "balancer", 1e6), (inf, "mirror", 3e6)):
        result = roll_out(evolve(MANY, balancer=balancer), IMAGES[0], nodes=100)
        assert result.busiest.startswith(line)
        assert result.seconds(result.ended) >= 100 * size / rate


def test_bounded_load_spreads_a_hot_blob() -> None:
    """At the price of further copies while it is cold."""
    hot = Image("library/hot", 1, IMAGES[0].layers[:1])
    pulls = rollout(hot, range(100), 0, 0)
    hashed, bounded = run(MANY, pulls), run(evolve(MANY, bound=1.25), pulls)
    assert sorted(map(bool, hashed.sent)) == [False, False, True]
    assert max(bounded.sent) <= 0.45 * sum(bounded.sent)
    assert hashed.counts["upstream GET blob"] == 1
    assert 1 < bounded.counts["upstream GET blob"] <= 3


@given(st.integers(1, 4), st.booleans(), st.sampled_from([None, 1.25]), st.integers(0, 10))
def test_every_byte_is_counted(mirrors: int, hashes: bool, bound: float | None, seed: int) -> None:
    """Mirrors send what machines ask for, and get each blob at most once each."""
    pulls: Sequence[Pull] = leave_out_known(steady(IMAGES, 6, 30, 0, 10, seed))
    result = run(Design(mirrors, 1e6, 1e6, 1e6, hashes=hashes, bound=bound), pulls)
    assert sum(result.sent) == sum(layer.size for pull in pulls for layer in pull.layers)
    blobs = len(layers_of(*(pull.image for pull in pulls)))
    assert blobs <= result.counts["upstream GET blob"] <= mirrors * blobs
    assert result.failed == 0
