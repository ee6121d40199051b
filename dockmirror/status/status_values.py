"""The state of the mirror, as values that processes exchange as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import asdict, frozen


@frozen
class AddressStatus:
    """The health of an address of an upstream; times are in seconds since the epoch.

    :ivar answered: time of its last answer, even if a refusal, or None.
    :ivar failed: time of its last failure, or None; ``failure`` is the reason.
    """

    url: str
    answered: float | None = None
    failed: float | None = None
    failure: str = ""

    @property
    def asked(self) -> float | None:
        """Time of the last outcome, or None."""
        return max((each for each in (self.answered, self.failed) if each is not None), default=None)

    @property
    def fails(self) -> bool:
        """True if the last outcome was a failure."""
        return self.failed is not None and self.failed == self.asked


@frozen
class Quota:
    """The last ``RateLimit`` fields of an upstream.

    :ivar told: time at which it sent them.
    """

    told: float
    limit: int | None = None
    remaining: int | None = None


@frozen
class UpstreamStatus:
    """The state of an upstream.

    :ivar registry: the registry's name in image names.
    :ivar host: its virtual host at the mirror.
    :ivar rests: until when anonymous requests are not sent, or None.
    """

    name: str
    registry: str
    host: str
    addresses: tuple[AddressStatus, ...]
    rests: float | None = None
    quota: Quota | None = None

    def state(self, now: float) -> str:
        """Return ``unasked``, ``resting``, ``failing`` if no address answers, or ``reachable``."""
        if self.rests is not None and now < self.rests:
            return "resting"
        asked = [each for each in self.addresses if each.asked is not None]
        if not asked:
            return "unasked"
        return "failing" if all(each.fails for each in asked) else "reachable"


@frozen
class DownloadStatus:
    """A download in flight.

    :ivar repositories: the repositories it is read for, whose names begin with the registry's.
    :ivar held: bytes that have arrived.
    :ivar size: bytes in all; None if the upstream does not tell.
    :ivar pace: bytes per second since it began; None if not known yet.
    """

    registry: str
    digest: str
    repositories: tuple[str, ...]
    held: int
    size: int | None = None
    pace: float | None = None


@frozen
class CacheUsage:
    """The bytes that the cache holds, and its budget."""

    bytes: int
    limit: int


@frozen
class RegistryUsage:
    """A registry's share of the cache.

    :ivar shared: bytes that other registries have, too.
    :ivar contents: number of blobs and manifests.
    """

    registry: str
    bytes: int
    shared: int
    contents: int


@frozen
class Usage:
    """The last measurement of each registry's share of the cache, the largest first.

    :ivar took: seconds that the measurement took.
    :ivar held: bytes in all, with downloads, documents and unlinked content.
    """

    measured: float
    took: float
    registries: tuple[RegistryUsage, ...]
    held: int

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Usage:
        """Read what ``asdict`` returns."""
        used = tuple(RegistryUsage(**each) for each in fields["registries"])
        return cls(float(fields["measured"]), float(fields["took"]), used, int(fields["held"]))


@frozen
class WorkerState:
    """The state of one worker, or of several merged.

    :ivar processes: how many workers it is of.
    """

    upstreams: tuple[UpstreamStatus, ...] = ()
    fetches: tuple[DownloadStatus, ...] = ()
    cache: CacheUsage | None = None
    processes: int = 1
    usage: Usage | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> WorkerState:
        """Read what ``as_json`` returns."""
        return cls(
            tuple(_upstream(each) for each in fields["upstreams"]),
            tuple(
                DownloadStatus(**{**each, "repositories": tuple(each["repositories"])})
                for each in fields["fetches"]
            ),
            CacheUsage(**fields["cache"]) if fields["cache"] else None,
            fields["processes"],
            Usage.from_json(fields["usage"]) if fields["usage"] else None,
        )


def _upstream(fields: Mapping[str, Any]) -> UpstreamStatus:
    addresses = tuple(AddressStatus(**each) for each in fields["addresses"])
    quota = Quota(**fields["quota"]) if fields["quota"] else None
    return UpstreamStatus(**{**fields, "addresses": addresses, "quota": quota})
