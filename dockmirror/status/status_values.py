"""What is told of the mirror, as values that processes can tell each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import asdict, frozen


@frozen
class AddressStatus:
    """An address of an upstream, and what came of asking there; times are in seconds since the epoch.

    :ivar answered: when it last gave an answer, be it a refusal; None where it has given none.
    :ivar failed: when it last gave none of use; ``failure`` says why, in a sentence.
    """

    url: str
    answered: float | None = None
    failed: float | None = None
    failure: str = ""

    @property
    def asked(self) -> float | None:
        """When it was last known to be there or not."""
        return max((each for each in (self.answered, self.failed) if each is not None), default=None)

    @property
    def fails(self) -> bool:
        """Whether the last that came of it was a failure."""
        return self.failed is not None and self.failed == self.asked


@frozen
class Quota:
    """What an upstream has last said of how much it may still be asked (``RateLimit-…``).

    :ivar told: when it said so.
    """

    told: float
    limit: int | None = None
    remaining: int | None = None


@frozen
class UpstreamStatus:
    """An upstream as its operator knows it.

    :ivar registry: its name in the names of images.
    :ivar host: its virtual host here.
    :ivar rests: until when it is asked for nothing on behalf of those who bring no credentials; None where
        it is.
    """

    name: str
    registry: str
    host: str
    addresses: tuple[AddressStatus, ...]
    rests: float | None = None
    quota: Quota | None = None

    def state(self, now: float) -> str:
        """``unasked``, ``resting``, ``failing`` where no address answers, or ``reachable``."""
        if self.rests is not None and now < self.rests:
            return "resting"
        asked = [each for each in self.addresses if each.asked is not None]
        if not asked:
            return "unasked"
        return "failing" if all(each.fails for each in asked) else "reachable"


@frozen
class DownloadStatus:
    """A blob on its way into the cache.

    :ivar repositories: that have been given it, with the registry's name in front.
    :ivar held: how many of its bytes are here.
    :ivar size: how many there will be; None where the upstream does not tell.
    :ivar pace: bytes a second since it is being fetched; None where that cannot be said yet.
    """

    registry: str
    digest: str
    repositories: tuple[str, ...]
    held: int
    size: int | None = None
    pace: float | None = None


@frozen
class CacheUsage:
    """How many bytes the cache holds, and how many it may."""

    bytes: int
    limit: int


@frozen
class RegistryUsage:
    """What a registry takes up in the cache.

    :ivar shared: how many of the bytes others have, too.
    :ivar contents: how many blobs and manifests these are.
    """

    registry: str
    bytes: int
    shared: int
    contents: int


@frozen
class Usage:
    """The space that every registry took up when that was last measured, the largest first.

    :ivar took: how many seconds it took to find out.
    :ivar held: bytes in all: also what is on its way in, lists and notes, and what no repository has.
    """

    measured: float
    took: float
    registries: tuple[RegistryUsage, ...]
    held: int

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Usage:
        """As ``asdict`` has it."""
        used = tuple(RegistryUsage(**each) for each in told["registries"])
        return cls(float(told["measured"]), float(told["took"]), used, int(told["held"]))


@frozen
class WorkerState:
    """What one process has noted, or several together.

    :ivar processes: how many they are.
    """

    upstreams: tuple[UpstreamStatus, ...] = ()
    fetches: tuple[DownloadStatus, ...] = ()
    cache: CacheUsage | None = None
    processes: int = 1
    usage: Usage | None = None

    def as_json(self) -> dict[str, Any]:
        """What ``from_json`` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> WorkerState:
        """As another process has told it."""
        return cls(
            tuple(_upstream(each) for each in told["upstreams"]),
            tuple(
                DownloadStatus(**{**each, "repositories": tuple(each["repositories"])})
                for each in told["fetches"]
            ),
            CacheUsage(**told["cache"]) if told["cache"] else None,
            told["processes"],
            Usage.from_json(told["usage"]) if told["usage"] else None,
        )


def _upstream(told: Mapping[str, Any]) -> UpstreamStatus:
    addresses = tuple(AddressStatus(**each) for each in told["addresses"])
    quota = Quota(**told["quota"]) if told["quota"] else None
    return UpstreamStatus(**{**told, "addresses": addresses, "quota": quota})
