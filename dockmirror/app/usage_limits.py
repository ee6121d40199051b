"""The limits of what client networks may use, from the settings."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import IResource

from ..config.image_rules import BudgetSettings
from ..config.settings import Settings
from ..http.usage import LimitTerms, RateCounters, UsageLimits, UsageMeter
from ..metrics import Metrics
from ..middleware.budgets import Budgets, ImageBudget
from ..oci.pull_rule import PullRule
from ..system.networks import parse_networks
from ..web.rate_limiter import RateLimiter


def limit_rate(
    settings: Settings, resource: IResource, clock: IReactorTime, counters: RateCounters, metrics: Metrics
) -> IResource:
    """Return the resource behind the limits of ``access``; the resource itself if there are none."""
    access = settings.access
    if access.requests is None and access.bytes is None:
        return resource
    limits = UsageLimits(access.requests, access.bytes, access.window)
    meter = UsageMeter(clock, counters, limits)
    return RateLimiter(resource, meter, _make_terms(settings), metrics.limited.labels("access").inc)


def make_budgets(
    settings: Settings, clock: IReactorTime, counters: RateCounters, metrics: Metrics
) -> Budgets:
    """Return the budgets for images, all of which use the same counters."""

    def make(number: int, budget: BudgetSettings) -> ImageBudget:
        limits = UsageLimits(budget.requests, budget.bytes, budget.window, budget.pulls)
        meter = UsageMeter(clock, counters, limits)
        rule = PullRule.parse(budget.images)
        return ImageBudget(number, budget.images, rule, budget.each == "image", meter)

    budgets = [make(number, each) for number, each in enumerate(settings.budget)]
    return Budgets(_make_terms(settings), budgets, lambda pattern: metrics.limited.labels(pattern).inc())


def _make_terms(settings: Settings) -> LimitTerms:
    return LimitTerms(tuple(parse_networks(settings.access.exempt)), settings.access.contact)
