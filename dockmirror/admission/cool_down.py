"""The cool-down: a tag moves to a new digest only when that has been its value for some time.

A digest is admitted once the tag has named it for ``min_age``, unbroken by a sighting of another one; if it
left earlier, it starts anew.  An admitted digest stays admitted, so a rollback is immediate.  Ages count from
sighting to sighting: time in which nobody asked the upstream makes nothing older.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from attrs import evolve, frozen

from ..interfaces import Sighting
from ..oci.digest import Digest
from .verdict import SERVE, Refuse, ServeInstead, Subject, Verdict

FirstPull = Literal["serve", "refuse", "registry"]
_UNITS = ((86_400.0, "d"), (3600.0, "h"), (60.0, "min"))


@frozen
class TagAges:
    """The sightings of a tag, oldest first, and the rule that they are measured by.

    :ivar min_age: seconds for which a tag must have named a digest.
    :ivar first_pull: what becomes of a tag that has no admitted digest yet.
    :ivar excepted: True if an exception of the operator, or an admitted index, covers the current digest.
    :ivar withheld: digests that are no replacement, since they, or what they refer to, were recalled.
    """

    sightings: Sequence[Sighting]
    min_age: float
    first_pull: FirstPull = "serve"
    excepted: bool = False
    withheld: frozenset[Digest] = frozenset()


def check_age(subject: Subject, ages: TagAges) -> Verdict:
    """Return which digest a tag is served as."""
    if subject.digest is not None and ages.excepted:
        return SERVE
    served = admitted_digests(ages)
    if subject.digest is not None and subject.digest in served:
        return SERVE
    if not ages.sightings and ages.first_pull == "serve":
        return SERVE  # an imported image, of which the upstream has never told anything
    left = format_age(ages.min_age - current_age(ages, subject.digest))
    if last := next((each for each in reversed(served) if each not in ages.withheld), None):
        why = f"{subject.digest} is too new for the cool-down, and is served in {left} if the tag keeps it"
        return ServeInstead(last, why if subject.digest else "the registry does not answer", "ages")
    reason = "no version of it has been admitted yet"
    if served:
        reason = "every version of it that was admitted has been recalled"
    return Refuse(
        f"{subject} is too new for the cool-down of {format_age(ages.min_age)}: {reason};"
        f" try again in {left}, use an older version, or ask the operator for an exception",
        "ages",
    )


def admitted_digests(ages: TagAges) -> list[Digest]:
    """Return the digests that were admitted, each as often as it was served, the last one at the end."""
    admitted: set[Digest] = set()
    served: list[Digest] = []
    for sighting in ages.sightings:
        is_baseline = sighting.is_baseline and ages.first_pull == "serve"
        if is_baseline or sighting.last - sighting.first >= ages.min_age:
            admitted.add(sighting.digest)
        if sighting.digest in admitted:
            served.append(sighting.digest)
    return served


def is_frozen(ages: TagAges) -> bool:
    """Return whether the tag was moved so often that nothing new has been admitted for ``min_age``."""
    admitted, left = set(admitted_digests(ages)), None
    moves = 0
    for sighting in ages.sightings:
        if sighting.digest in admitted:
            left, moves = sighting.last, 0
        else:
            moves += 1
    return left is not None and moves > 1 and ages.sightings[-1].last - left >= ages.min_age


def ages_at(ages: TagAges, time: float) -> TagAges:
    """Return the ages as they were known at a time."""
    known = [evolve(each, last=min(each.last, time)) for each in ages.sightings if each.first <= time]
    return evolve(ages, sightings=known)


def current_age(ages: TagAges, digest: Digest | None) -> float:
    """Return the seconds for which the tag has named the digest; 0 if that is not its last sighting."""
    if not ages.sightings or ages.sightings[-1].digest != digest:
        return 0.0
    return ages.sightings[-1].last - ages.sightings[-1].first


def format_age(seconds: float) -> str:
    """Format a duration in its largest unit, rounded up."""
    for unit, name in _UNITS:
        if seconds >= unit or unit == 60.0:
            return f"{int(-(-max(seconds, 1.0) // unit))} {name}"
    raise AssertionError("unreachable")


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


def summarize_ages(ages: TagAges, since: float) -> TagSummary:
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
