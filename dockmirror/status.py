"""The state of the mirror: values that processes exchange as JSON, their recording and their merging."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from attrs import asdict, evolve, frozen
from twisted.internet.interfaces import IReactorTime


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
class AccountStatus:
    """The state of one of the mirror's accounts at an upstream, by its name in the settings."""

    name: str
    quota: Quota | None = None


@frozen
class UpstreamStatus:
    """The state of an upstream.

    :ivar registry: the registry's name in image names.
    :ivar host: its virtual host at the mirror.
    :ivar rests: until when anonymous requests are not sent, or None.
    :ivar quota: that of repositories without an account among ``accounts``.
    :ivar offline: True if the operator has set that nothing is asked of it.
    :ivar accounts: the mirror's accounts for some of its repositories.
    """

    name: str
    registry: str
    host: str
    addresses: tuple[AddressStatus, ...]
    rests: float | None = None
    quota: Quota | None = None
    offline: bool = False
    accounts: tuple[AccountStatus, ...] = ()

    def state(self, now: float) -> str:
        """Return ``offline``, ``unasked``, ``resting``, ``failing`` or ``reachable``.

        It is failing if no address answers.
        """
        if self.offline:
            return "offline"
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
    """The bytes that the cache holds, its budget, and what is to stay free on its file system."""

    bytes: int
    limit: int
    min_free: int = 0


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
    :ivar free: bytes that the file system had free.
    """

    measured: float
    took: float
    registries: tuple[RegistryUsage, ...]
    held: int
    free: int = 0

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Usage:
        """Read what ``asdict`` returns."""
        used = tuple(RegistryUsage(**each) for each in fields["registries"])
        held, free = int(fields["held"]), int(fields["free"])
        return cls(float(fields["measured"]), float(fields["took"]), used, held, free)


@frozen
class CertificateStatus:
    """A certificate in use.

    :ivar expires: in seconds since the epoch; 0 if there is none yet.
    """

    file: str
    expires: float


@frozen
class NetworkShare:
    """The use of a budget by one client network; where each image is counted by itself, of one image.

    :ivar client: the network as far as the history may name it; empty if it may not.
    :ivar share: the used part of the limit of which most is used; at least 1 if the budget is used up.
    :ivar ends: when the window ends, in seconds since the epoch.
    """

    client: str
    share: float
    requests: int
    pulls: int
    bytes: int
    ends: float


@frozen
class BudgetStatus:
    """A budget for images, and its use in the current window of each client network.

    :ivar images: the pattern of the images.
    :ivar each: ``image`` if each image is counted by itself; ``network`` if all of them together.
    :ivar window: seconds.
    :ivar networks: number of client networks that have used some of it.
    :ivar used_up: number of those that have used up a limit, of some image at least.
    :ivar refused: number of requests that were refused since the mirror started.
    :ivar most: the networks with the largest shares.
    """

    images: str
    each: str
    requests: int | None
    pulls: int | None
    bytes: int | None
    window: float
    networks: int = 0
    used_up: int = 0
    refused: int = 0
    most: tuple[NetworkShare, ...] = ()


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
    certificates: tuple[CertificateStatus, ...] = ()

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
            tuple(CertificateStatus(**each) for each in fields["certificates"]),
        )


def _upstream(fields: Mapping[str, Any]) -> UpstreamStatus:
    addresses = tuple(AddressStatus(**each) for each in fields["addresses"])
    accounts = tuple(AccountStatus(each["name"], _quota(each["quota"])) for each in fields["accounts"])
    read = {"addresses": addresses, "quota": _quota(fields["quota"]), "accounts": accounts}
    return UpstreamStatus(**{**fields, **read})


def _quota(fields: Mapping[str, Any] | None) -> Quota | None:
    return Quota(**fields) if fields else None


class AddressHealth:
    """The health of one address of an upstream."""

    def __init__(self, url: str, clock: IReactorTime) -> None:
        self.address = AddressStatus(url)
        self._clock = clock

    def record_answer(self) -> None:
        """Record an answer; a refusal is one, too."""
        self.address = evolve(self.address, answered=self._clock.seconds())

    def record_failure(self, reason: str) -> None:
        """Record a failure and its reason."""
        self.address = evolve(self.address, failed=self._clock.seconds(), failure=reason)


class UpstreamHealth:
    """The health of one upstream.

    :ivar rests: until when anonymous requests are not sent, or None.
    :ivar quotas: its last ``RateLimit`` fields for each of the mirror's accounts, by name; for all other
        requests, and for the account without a name, by an empty one.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self.rests: float | None = None
        self.quotas: dict[str, Quota] = {}
        self._clock = clock
        self._addresses: dict[str, AddressHealth] = {}

    def of(self, url: str) -> AddressHealth:
        """Return the health of one of its addresses."""
        return self._addresses.setdefault(url, AddressHealth(url, self._clock))

    def record_pause(self, until: float | None) -> None:
        """Record until when anonymous requests are not sent."""
        self.rests = until

    def record_quota(self, account: str, limit: int | None, remaining: int | None) -> None:
        """Record the ``RateLimit`` fields for an account; a missing one keeps its last value."""
        if limit is None and remaining is None:
            return
        before = self.quotas.get(account) or Quota(0.0)
        self.quotas[account] = Quota(
            self._clock.seconds(),
            before.limit if limit is None else limit,
            before.remaining if remaining is None else remaining,
        )


class UpstreamHealthTable:
    """The health of all upstreams, by their names in the settings; it survives new settings."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._outcomes: dict[str, UpstreamHealth] = {}

    def of(self, name: str) -> UpstreamHealth:
        """Return the health of one upstream."""
        return self._outcomes.setdefault(name, UpstreamHealth(self._clock))


def merge_states(states: Sequence[WorkerState]) -> WorkerState:
    """Merge worker states: the newest value of local facts, the latest measurement of shared ones."""
    upstreams: dict[str, UpstreamStatus] = {}
    for each in (upstream for one in states for upstream in one.upstreams):
        known = upstreams.get(each.name)
        upstreams[each.name] = _merge_upstreams(known, each) if known else each
    latest = max(states, key=_freshness, default=None)
    fetches = sorted((fetch for one in states for fetch in one.fetches), key=_download_key)
    return WorkerState(
        tuple(upstreams.values()),
        tuple(_merge_downloads(same) for _, same in groupby(fetches, _download_key)),
        latest.cache if latest else None,
        sum(one.processes for one in states),
        latest.usage if latest else None,
        tuple({each.file: each for one in states for each in one.certificates}.values()),
    )


def _merge_upstreams(one: UpstreamStatus, other: UpstreamStatus) -> UpstreamStatus:
    known = {each.url: each for each in other.addresses}
    others = {each.name: each.quota for each in other.accounts}
    return evolve(
        one,
        addresses=tuple(_merge_addresses(each, known[each.url]) if each.url in known else each
                        for each in one.addresses),
        rests=max((each for each in (one.rests, other.rests) if each is not None), default=None),
        quota=_latest(one.quota, other.quota),
        accounts=tuple(evolve(each, quota=_latest(each.quota, others.get(each.name)))
                       for each in one.accounts),
    )  # fmt: skip


def _latest(*quotas: Quota | None) -> Quota | None:
    return max((each for each in quotas if each), key=lambda quota: quota.told, default=None)


def _merge_addresses(one: AddressStatus, other: AddressStatus) -> AddressStatus:
    later = max(one, other, key=lambda each: each.failed or 0.0)
    answered = max((each for each in (one.answered, other.answered) if each is not None), default=None)
    return evolve(later, answered=answered)


def _download_key(fetch: DownloadStatus) -> tuple[str, str]:
    return fetch.registry, fetch.digest


def _merge_downloads(same: Iterable[DownloadStatus]) -> DownloadStatus:
    """Merge the states of one download: one process writes it, others read it, for different repositories."""
    downloads = list(same)
    names = sorted({name for each in downloads for name in each.repositories})
    furthest = max(downloads, key=lambda each: (each.held, each.pace or 0.0))
    return evolve(furthest, repositories=tuple(names))


def _freshness(one: WorkerState) -> tuple[float, int]:
    """Return the sort key of a state: the time of its measurement, then the bytes that it knows of."""
    return one.usage.measured if one.usage else -1.0, one.cache.bytes if one.cache else -1
