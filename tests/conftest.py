"""What holds for all tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("dockmirror", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("dockmirror")  # a machine that is busy with something else fails no test
