"""The values of the history, and the interface by which pages and commands read it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf
from typing import Literal, Protocol

from attrs import astuple, frozen

Outcome = Literal["running", "served", "failed"]
SumKey = Literal["hour", "day", "registry", "repository", "client"]
OTHERS = "(others)"
"""The key under which all further keys are summed up."""


class HistoryError(Exception):
    """Raised if the history cannot be read; the message is a sentence for the operator."""


class InvalidFilter(HistoryError):
    """Raised if a condition of a filter is malformed."""


@frozen
class Pull:
    """An image that a client pulled, or is pulling.

    :ivar number: identifies the pull, in logs too; later pulls have larger numbers.
    :ivar began: in seconds since the epoch.
    :ivar seconds: until the last byte.
    :ivar client: an address, a network or an empty string, as ``history_addresses`` says.
    :ivar user: the user name; empty if the mirror requires no login.
    :ivar host: the host name that the client requested.
    :ivar reference: a tag or a digest.
    :ivar digest: of the manifest that the pull begins with; empty if unknown.
    :ivar platform: such as linux/amd64; empty if unknown.
    :ivar layers: layers that were requested; the configuration is none.
    :ivar cached_bytes: bytes sent out of the cache.
    :ivar upstream_bytes: bytes sent while they were fetched.
    :ivar saved_requests: requests for which the upstream was not asked.
    :ivar saved_pulls: pulls that the upstream would have counted against its limit.
    :ivar reason: a sentence that says why the pull failed; empty otherwise.
    """

    number: int
    began: float
    seconds: float
    client: str
    user: str
    host: str
    registry: str
    repository: str
    reference: str
    digest: str
    platform: str
    layers: int
    cached_layers: int
    cached_bytes: int
    upstream_bytes: int
    saved_requests: int
    saved_pulls: int
    outcome: Outcome
    reason: str

    @property
    def image(self) -> str:
        """The full name of the image."""
        separator = "@" if ":" in self.reference else ":"
        return f"{self.registry}/{self.repository}{separator}{self.reference}"

    @property
    def requester(self) -> str:
        """The user and the client, as far as both are known."""
        return "@".join(filter(None, (self.user, self.client)))


@frozen
class PullFilter:
    """Conditions that a pull must meet; an empty one is met by all.

    :ivar image: a glob over ``registry/repository`` or ``registry/repository:tag``.
    :ivar client: an address or a network.
    :ivar since: the earliest beginning, in seconds since the epoch; ``until`` is the end, which is excluded.
    :ivar reason: a part of the sentence that says why it failed.
    """

    image: str = ""
    digest: str = ""
    client: str = ""
    user: str = ""
    since: float = 0.0
    until: float = inf
    outcome: str = ""
    reason: str = ""


@frozen
class PullSums:
    """Sums over the pulls that have a key in common.

    :ivar key: an hour or a day (UTC, ISO 8601), a registry, a repository with its registry, or a client.
    :ivar seconds: for which the pulls lasted.
    :ivar saved_seconds: an estimate: what the cached bytes would have taken at the upstream's speed.
    """

    key: str
    pulls: int
    failed: int
    cached_bytes: int
    upstream_bytes: int
    saved_requests: int
    saved_pulls: int
    seconds: float
    saved_seconds: float


def add_sums(key: str, sums: Iterable[PullSums]) -> PullSums:
    """Return the total of sums under a new key."""
    rows = [(0, 0, 0, 0, 0, 0, 0.0, 0.0), *(astuple(each)[1:] for each in sums)]
    return PullSums(key, *(sum(column) for column in zip(*rows, strict=True)))


class HistoryReader(Protocol):
    """Reads the history.  Its methods block: call them in a thread.

    :raises HistoryError: when the file cannot be read.
    :raises InvalidFilter: when a condition is malformed.
    """

    def pulls(self, filter: PullFilter, limit: int = 100, after: int = 0) -> Sequence[Pull]:
        """Return pulls, newest first.

        :param after: the number of the last pull of the previous page; 0 for the first page.
        """

    def sums(self, by: SumKey, filter: PullFilter, limit: int = 1000) -> Sequence[PullSums]:
        """Return sums: hours and days oldest first, others by bytes, largest first.

        Bytes that belong to no pull, such as a blob without its manifest, are counted too.
        """
