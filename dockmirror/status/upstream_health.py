"""The health of upstreams, recorded from the outcome of requests to them."""

from __future__ import annotations

from attrs import evolve
from twisted.internet.interfaces import IReactorTime

from .status_values import AddressStatus, Quota


class AddressHealth:
    """The health of one address of an upstream."""

    def __init__(self, url: str, clock: IReactorTime) -> None:
        self.address = AddressStatus(url)
        self._clock = clock

    def answered(self) -> None:
        """Record an answer; a refusal is one, too."""
        self.address = evolve(self.address, answered=self._clock.seconds())

    def failed(self, why: str) -> None:
        """Record a failure and its reason."""
        self.address = evolve(self.address, failed=self._clock.seconds(), failure=why)


class UpstreamHealth:
    """The health of one upstream.

    :ivar rests: until when anonymous requests are not sent, or None.
    :ivar quota: its last ``RateLimit`` fields, or None.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self.rests: float | None = None
        self.quota: Quota | None = None
        self._clock = clock
        self._addresses: dict[str, AddressHealth] = {}

    def of(self, url: str) -> AddressHealth:
        """Return the health of one of its addresses."""
        return self._addresses.setdefault(url, AddressHealth(url, self._clock))

    def rest(self, until: float | None) -> None:
        """Record until when anonymous requests are not sent."""
        self.rests = until

    def allow(self, limit: int | None, remaining: int | None) -> None:
        """Record its ``RateLimit`` fields; a missing one keeps its last value."""
        if limit is None and remaining is None:
            return
        before = self.quota or Quota(0.0)
        self.quota = Quota(
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
