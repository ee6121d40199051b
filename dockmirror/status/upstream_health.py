"""What came of asking upstreams, noted as they are asked for clients."""

from __future__ import annotations

from attrs import evolve
from twisted.internet.interfaces import IReactorTime

from .status_values import AddressStatus, Quota


class AddressHealth:
    """What came of asking one address."""

    def __init__(self, url: str, clock: IReactorTime) -> None:
        self.address = AddressStatus(url)
        self._clock = clock

    def answered(self) -> None:
        """It said something of use, be it no."""
        self.address = evolve(self.address, answered=self._clock.seconds())

    def failed(self, why: str) -> None:
        """It did not."""
        self.address = evolve(self.address, failed=self._clock.seconds(), failure=why)


class UpstreamHealth:
    """What came of asking one upstream.

    :ivar rests: see ``Upstream``.
    :ivar quota: what it has told of it.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self.rests: float | None = None
        self.quota: Quota | None = None
        self._clock = clock
        self._addresses: dict[str, AddressHealth] = {}

    def of(self, url: str) -> AddressHealth:
        """Of one of its addresses."""
        return self._addresses.setdefault(url, AddressHealth(url, self._clock))

    def rest(self, until: float | None) -> None:
        """It rests until then."""
        self.rests = until

    def allow(self, limit: int | None, remaining: int | None) -> None:
        """It has told how much it may be asked; what it leaves out is as it was."""
        if limit is None and remaining is None:
            return
        before = self.quota or Quota(0.0)
        self.quota = Quota(
            self._clock.seconds(),
            before.limit if limit is None else limit,
            before.remaining if remaining is None else remaining,
        )


class UpstreamHealthTable:
    """What came of asking all of them, by their names in the settings; new settings forget nothing."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._outcomes: dict[str, UpstreamHealth] = {}

    def of(self, name: str) -> UpstreamHealth:
        """Of one of them."""
        return self._outcomes.setdefault(name, UpstreamHealth(self._clock))
