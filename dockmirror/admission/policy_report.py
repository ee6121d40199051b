"""The effect of a cool-down on a tag, computed from its history alone."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve, frozen

from ..interfaces import Sighting
from .cool_down import TagAges, admitted_digests, is_frozen


@frozen
class TagSummary:
    """The effect of a cool-down on one tag since some time.

    :ivar moves: how often the tag was moved.
    :ivar withheld: how many of its digests were not served at first.
    :ivar withdrawn: how many of those left again before they were old enough.
    :ivar seconds: for how long another digest was served than the tag named, or none.
    :ivar state: "current", "behind", "frozen" or "refused".
    """

    moves: int
    withheld: int
    withdrawn: int
    seconds: float
    state: str


def summarize(ages: TagAges, since: float) -> TagSummary:
    """Return what the cool-down has done, or would have done, to a tag since then."""
    sightings = ages.sightings
    recent = [index for index, each in enumerate(sightings) if each.last >= since]
    withheld = [index for index in recent if not _was_admitted(ages, index)]
    moves = [index for index in recent if index and sightings[index].first >= since]
    seconds = [_withheld_seconds(ages, index, since) for index in withheld]
    left = [index for index in withheld if index + 1 < len(sightings)]
    withdrawn = [index for index in left if sightings[index].last - sightings[index].first < ages.min_age]
    return TagSummary(len(moves), len(withheld), len(withdrawn), sum(seconds), _find_state(ages))


def _was_admitted(ages: TagAges, index: int) -> bool:
    """Return whether the digest of a sighting was served as soon as the tag named it."""
    before = evolve(ages, sightings=ages.sightings[:index])
    is_baseline = ages.sightings[index].is_baseline and ages.first_pull == "serve"
    return is_baseline or ages.sightings[index].digest in admitted_digests(before)


def _withheld_seconds(ages: TagAges, index: int, since: float) -> float:
    sighting = ages.sightings[index]
    end = min(_end(ages.sightings, index), sighting.first + ages.min_age)
    return max(0.0, end - max(sighting.first, since))


def _end(sightings: Sequence[Sighting], index: int) -> float:
    """Return when the next digest was seen; of the last sighting, when it was seen last."""
    return sightings[index + 1].first if index + 1 < len(sightings) else sightings[index].last


def _find_state(ages: TagAges) -> str:
    admitted = admitted_digests(ages)
    if ages.sightings and ages.sightings[-1].digest in admitted:
        return "current"
    if not admitted:
        return "refused"
    return "frozen" if is_frozen(ages) else "behind"
