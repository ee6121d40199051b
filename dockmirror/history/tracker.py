"""Decisions about pulls, without I/O: which pull a request joins, and what a pull's requests make of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_network
from typing import Literal, NamedTuple

from attrs import define

from ..oci.header_fields import CacheResult
from ..oci.media import DOCKER_LIST, OCI_INDEX
from ..system.networks import Address, Region, find_region, network_class, parse_address
from .pulls import Outcome

JOIN_SECONDS = 60.0
"""Seconds after the last byte of a pull in which a request may join it."""
QUIET_SECONDS = 3.0
"""Seconds after the last byte for which a pull counts as running; open transfers are noted each second."""
REPEAT_SECONDS = 3600.0
"""Seconds after the beginning of a pull in which its first manifest may be requested again."""
CACHED = (
    CacheResult.HIT,
    CacheResult.STALE_WHILE_REVALIDATE,
    CacheResult.REDIRECTED,
    CacheResult.CONFIRMED,
    CacheResult.STALE,
)
"""Results for which content came out of the cache; a tuple, since the hash of an enum is slow."""
_COUNTED_ELSEWHERE = (*CACHED, CacheResult.JOINED)
_NUMBER_BITS = 12
_REFERRERS_TAG = re.compile(r"sha256-[0-9a-f]{64}(\.\w+)?")
AddressDetail = Literal["full", "network", "region", "none"]
_NETWORK_BITS = {4: 24, 6: 48}


Member = tuple[int, int, float, bool]
"""A manifest or a tag that was requested in a pull.

Its fields are the number of the pull, the hash of the digest or tag, the time of the pull's last byte, and
True if it was served completely.
"""


def find_pull(
    members: Iterable[Member], name: int, is_named_by: Callable[[int, int], object], now: float
) -> Member | None:
    """Return the member by which a request joins its pull, or None.

    It joins the last pull in which the same name was requested, or else the last one of which a manifest
    names it.

    :param members: of the pulls by the same client and user from the same repository.
    :param is_named_by: tells if the manifest with a hash names the content with another.
    """
    found, best = None, (False, 0.0, 0)
    for member in members:
        number, other, last, _ = member
        if abs(now - last) > JOIN_SECONDS:
            continue
        is_same = other == name
        if is_same:
            if now - began(number) > REPEAT_SECONDS:
                continue
        elif best[0] or not is_named_by(other, name):
            continue
        rank = is_same, last, number
        if rank > best:
            found, best = member, rank
    return found


def find_failed_pull(members: Iterable[Member], name: int, now: float) -> Member | None:
    """Return the member by which a failed request joins a pull if its manifest was served before, or None.

    It is the last pull in which the same name was requested, and was not served.
    """
    return find_pull((each for each in members if not each[3]), name, lambda *_: False, now)


def has_several_pulls(members: Sequence[Member], now: float) -> bool:
    """Return whether a request may join more than one pull."""
    if len({each[0] for each in members}) < 2:
        return False  # most clients have one, and the times are slower to compare
    return len({each[0] for each in members if abs(now - each[2]) <= JOIN_SECONDS}) > 1


def make_number(now: float, process: int, count: int) -> int:
    """Return the number of a pull that begins now: milliseconds, six bits of the process, six of a count.

    It is below 2 to the power of 53, so that programs which read JSON numbers as floats keep it.
    """
    return int(now * 1000) << _NUMBER_BITS | (process & 63) << 6 | count & 63 or 1


def began(number: int) -> float:
    """Return when the pull with that number began, in seconds since the epoch."""
    return (number >> _NUMBER_BITS) / 1000


def first_number(time: float) -> int:
    """Return the smallest number of a pull that begins at that time."""
    return int(max(0.0, time) * 1000) << _NUMBER_BITS


def saves_pull(result: CacheResult, media_type: str | None) -> bool:
    """Return whether a GET of a manifest saved a pull, if the upstream limits pulls.

    Docker Hub counts a pull for each platform of an image, and no HEAD; an index alone is none.
    """
    return result in _COUNTED_ELSEWHERE and media_type not in (OCI_INDEX, DOCKER_LIST)


def is_ignored(status: int, reference: str) -> bool:
    """Return whether a response is no part of a pull: a challenge, or the lack of signatures."""
    return status == 401 or (status == 404 and _REFERRERS_TAG.fullmatch(reference) is not None)


def stored_client(address: Address | None, detail: AddressDetail, regions: tuple[Region, ...] = ()) -> str:
    """Return a client as the history keeps it: its address, its /24 or /48, its region, or nothing.

    The region of a client that is in none is ``private`` or ``public``.
    """
    if address is None or detail == "none":
        return ""
    if detail == "full":
        return str(address)
    if detail == "region":
        region = find_region(address, regions)
        return network_class(address) if region is None else region.name
    return str(ip_network((address, _NETWORK_BITS[address.version]), strict=False))


def parse_client(text: str, addresses: AddressDetail) -> str:
    """Return an address or a network as the history writes it, or the name of a region; empty for all.

    :param addresses: the part of clients' addresses that the history keeps.
    :raises ValueError: when it is none of them; only a history of regions has names.
    """
    if not text:
        return ""
    try:
        if "/" in text:
            return str(ip_network(text, strict=False))
        address = parse_address(text)
    except ValueError:
        if addresses == "region" and "/" not in text:
            return text
        raise ValueError(f"{text} is neither an address nor a network") from None
    return stored_client(address, "network" if addresses == "network" else "full")


class PartState(NamedTuple):
    """One manifest or blob of a pull, which may be requested several times.

    :ivar ended: when its last request ended, or was seen running.
    :ivar is_cached: True if its last complete response came out of the cache.
    :ivar reason: why its last request failed; empty if it did not.
    """

    ended: float
    is_layer: bool = False
    is_cached: bool = False
    reason: str = ""

    def then(self, later: PartState) -> PartState:
        """Return the state after another request, in whatever order both are reported."""
        first, last = (later, self) if later.ended < self.ended else (self, later)
        is_layer = first.is_layer or last.is_layer
        return PartState(last.ended, is_layer, last.is_cached, last.reason)


@define(eq=False)
class PullReport:
    """The requests of a pull since the last report.

    :ivar number: of the pull; 0 for a blob without one, which counts in sums only.
    :ivar reference: of the manifest that the pull begins with, as ``digest``; empty if it was not requested.
    :ivar parts: what was requested with a GET, by the hash of its tag or digest.
    :ivar gets: requests other than HEADs; a pull without any is none.
    """

    number: int
    client: str
    user: str
    host: str
    registry: str
    repository: str
    parts: dict[int, PartState]
    reference: str = ""
    digest: str = ""
    platform: str = ""
    last: float = 0.0
    gets: int = 0
    saved_requests: int = 0
    saved_pulls: int = 0
    cached_bytes: int = 0
    upstream_bytes: int = 0
    upstream_seconds: float = 0.0


class PartSummary(NamedTuple):
    """The layers of a pull, and why it failed, by its parts."""

    layers: int
    cached_layers: int
    reason: str


def summarize_parts(parts: Sequence[PartState]) -> PartSummary:
    """Return the layers that were requested, and the reason of the first part that failed for good."""
    layers = [each for each in parts if each.is_layer]
    failed = sorted((each for each in parts if each.reason), key=lambda each: each.ended)
    return PartSummary(
        len(layers), sum(each.is_cached for each in layers), failed[0].reason if failed else ""
    )


def outcome_of(reason: str, last: float, now: float) -> Outcome:
    """Return the outcome of a pull: a failed one may still be tried again."""
    if reason:
        return "failed"
    return "running" if abs(now - last) <= QUIET_SECONDS else "served"
