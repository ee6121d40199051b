"""Requests for the parts of pulls, as a recorder notes them, and the reports that they add up to."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from attrs import define

from ..oci.request import Reference
from ..system.networks import ClientAddress, Region, normalize_host
from .pull_table import ClientRecord
from .tracker import AddressDetail, PartState, PullReport, stored_client

_stored_client = lru_cache(maxsize=4096)(stored_client)
_normalize_host = lru_cache(maxsize=1024)(normalize_host)


@define(eq=False)
class RunningPull:
    """A pull as this process has last seen it; a blob that belongs to none has one with the number 0.

    :ivar record: the client's pulls in the table.
    :ivar touched: when its last byte was sent, if the table is to be told; 0 if it knows.
    :ivar reference: of the manifest that it begins with, as ``digest``; empty if it is not known here.
    """

    number: int
    id: str
    record: ClientRecord
    client: ClientAddress
    registry: str
    repository: str
    touched: float = 0.0
    reference: str = ""
    digest: str = ""
    platform: str = ""


@define(eq=False)
class PartRequest:
    """A request for a manifest or a blob; its amounts are those since its last report.

    :ivar name: hash of the reference.
    :ivar is_first: True if the pull begins with it.
    :ivar is_new: True if it is the first request of its pull.
    :ivar reported: time of the last report, at first of the beginning.
    :ivar gets: 1 if it is a GET that is not reported yet, 0 if it is, -1 to take a report back.
    :ivar manifest: hash of the digest of the manifest that was answered; 0 if none was.
    :ivar ended: time of its end; None if it still runs, or is no part of the pull.
    :ivar reason: why it failed; empty if it did not.
    :ivar sent: bytes of content that are reported.
    """

    pull: RunningPull
    reference: Reference
    name: int
    is_manifest: bool
    is_head: bool
    is_first: bool
    is_new: bool
    is_layer: bool
    reported: float
    gets: int
    manifest: int = 0
    is_answered: bool = False
    is_cached: bool = False
    ended: float | None = None
    reason: str = ""
    sent: int = 0
    bytes: int = 0
    seconds: float = 0.0
    saved_requests: int = 0
    saved_pulls: int = 0


def add_up(
    requests: Iterable[PartRequest], detail: AddressDetail, regions: tuple[Region, ...]
) -> list[PullReport]:
    """Return what requests report of each pull.

    :param requests: in the order in which they ended.
    """
    reports: dict[RunningPull, PullReport] = {}
    for each in requests:
        pull = each.pull
        report = reports.get(pull)
        if report is None:
            report = reports[pull] = _begin_report(pull, detail, regions)
        report.last = max(report.last, each.reported)
        report.saved_requests += each.saved_requests
        report.saved_pulls += each.saved_pulls
        report.gets += each.gets
        if each.is_head:
            continue
        if each.is_cached:
            report.cached_bytes += each.bytes
        else:
            report.upstream_bytes += each.bytes
            report.upstream_seconds += each.seconds
        if each.ended is not None:
            report.parts[each.name] = PartState(each.ended, each.is_layer, each.is_cached, each.reason)
        elif each.is_answered:
            report.parts.setdefault(each.name, PartState(each.reported, each.is_layer, each.is_cached))
    return list(reports.values())


def _begin_report(pull: RunningPull, detail: AddressDetail, regions: tuple[Region, ...]) -> PullReport:
    client = pull.client
    return PullReport(
        pull.number, _stored_client(client.address, detail, regions), client.user or "",
        _normalize_host(client.host), pull.registry, pull.repository, {},
        pull.reference, pull.digest, pull.platform,
    )  # fmt: skip
