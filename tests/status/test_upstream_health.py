"""The health of upstreams."""

from __future__ import annotations

from twisted.internet.task import Clock

from dockmirror.status.status_values import AddressStatus, Quota, UpstreamHealth, UpstreamHealthTable


def test_an_address_records_answers_and_failures() -> None:
    """Each with its time, a failure with its reason."""
    clock = Clock()
    outcomes = UpstreamHealth(clock)
    assert outcomes.of("https://a").address == AddressStatus("https://a")
    assert outcomes.of("https://a").address.asked is None
    clock.advance(5)
    outcomes.of("https://a").failed("it is down")
    assert outcomes.of("https://a").address == AddressStatus("https://a", None, 5.0, "it is down")
    assert outcomes.of("https://a").address.fails
    clock.advance(1)
    outcomes.of("https://a").answered()
    assert outcomes.of("https://a").address == AddressStatus("https://a", 6.0, 5.0, "it is down")
    assert not outcomes.of("https://a").address.fails
    assert outcomes.of("https://b").address.asked is None


def test_a_quota_keeps_its_last_values() -> None:
    """A response without the fields changes nothing."""
    clock = Clock()
    outcomes = UpstreamHealth(clock)
    outcomes.allow(None, None)
    assert outcomes.quota is None
    clock.advance(1)
    outcomes.allow(100, 76)
    clock.advance(1)
    outcomes.allow(None, None)
    assert outcomes.quota == Quota(1.0, 100, 76)
    outcomes.allow(None, 75)
    assert outcomes.quota == Quota(2.0, 100, 75)


def test_health_survives_new_settings() -> None:
    """An upstream keeps its record under its name."""
    upstreams = UpstreamHealthTable(Clock())
    upstreams.of("docker").rest(9.0)
    assert upstreams.of("docker").rests == 9.0
    assert upstreams.of("other").rests is None
