"""The limits of what client networks may use, from the settings, and what they have used of budgets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from heapq import nlargest

from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import IResource

from ..config.image_rules import BudgetSettings
from ..config.settings import Settings
from ..history.tracker import stored_client
from ..http.usage import (
    LABEL_SIZE,
    LimitTerms,
    RateCounters,
    RefusalCounters,
    UsageLimits,
    UsageMeter,
    Window,
)
from ..metrics import Metrics
from ..middleware.filters import Budgets, ImageBudget, budget_identifier, split_label
from ..oci.pull_rule import PullRule
from ..status import BudgetStatus, NetworkShare
from ..system.networks import client_network, parse_networks, unpack_address
from ..web.client_limits import RateLimiter
from ..web.shared_tables import SharedTables
from .cache_settings import client_regions

_MOST_NETWORKS = 5
"""Networks that are listed for each budget."""


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


class BudgetCounters:
    """The counters of all budgets, in memory that processes share."""

    def __init__(self, memory: SharedTables) -> None:
        self.usage = RateCounters(memory.budget_counters, LABEL_SIZE)
        self.refusals = RefusalCounters(memory.budget_refusals)


def make_budgets(
    settings: Settings, clock: IReactorTime, counters: BudgetCounters, metrics: Metrics
) -> Budgets:
    """Return the budgets for images, all of which use the same counters."""

    def make(identifier: bytes, budget: BudgetSettings) -> ImageBudget:
        meter = UsageMeter(clock, counters.usage, _limits(budget))
        rule = PullRule.parse(budget.images)
        return ImageBudget(identifier, budget.images, rule, budget.each == "image", meter)

    def count_refusal(budget: ImageBudget) -> None:
        metrics.limited.labels(budget.pattern).inc()
        counters.refusals.add(budget.identifier)

    budgets = [make(*each) for each in zip(_identify(settings), settings.budget, strict=True)]
    return Budgets(_make_terms(settings), budgets, count_refusal)


def _identify(settings: Settings) -> Sequence[bytes]:
    """Return the identifiers of the budgets, which stay the same where others are added or removed."""
    seen: Counter[tuple[str, bool]] = Counter()
    identifiers = []
    for budget in settings.budget:
        alike = budget.images, budget.each == "image"
        identifiers.append(budget_identifier(*alike, seen[alike]))
        seen[alike] += 1
    return identifiers


def _limits(budget: BudgetSettings) -> UsageLimits:
    return UsageLimits(budget.requests, budget.bytes, budget.window, budget.pulls)


def _make_terms(settings: Settings) -> LimitTerms:
    return LimitTerms(tuple(parse_networks(settings.access.exempt)), settings.access.contact)


def read_budgets(settings: Settings, counters: BudgetCounters, now: float) -> Sequence[BudgetStatus]:
    """Return the use of each budget, from all counters: with all of them in use that takes a while.

    Networks are named as the history names clients: not at all if it keeps no addresses, or is off.
    """
    if not settings.budget:
        return ()
    identifiers = _identify(settings)
    usage = _collect_usage(dict(zip(identifiers, map(_limits, settings.budget), strict=True)), counters, now)

    def read(identifier: bytes, budget: BudgetSettings) -> BudgetStatus:
        shares = usage[identifier]
        most = nlargest(_MOST_NETWORKS, shares.items(), key=lambda item: item[1][0])
        return BudgetStatus(
            images=budget.images,
            each=budget.each,
            requests=budget.requests,
            pulls=budget.pulls,
            bytes=budget.bytes,
            window=budget.window,
            networks=len(shares),
            used_up=sum(share >= 1 for share, _ in shares.values()),
            refused=counters.refusals.count(identifier),
            most=tuple(_describe(_client_name(settings, network), *each) for network, each in most),
        )

    return [read(*each) for each in zip(identifiers, settings.budget, strict=True)]


def _collect_usage(
    limits: Mapping[bytes, UsageLimits], counters: BudgetCounters, now: float
) -> Mapping[bytes, Mapping[bytes, tuple[float, Window]]]:
    """Return each network's largest share of each budget, by the packed address of the network."""
    found: dict[bytes, dict[bytes, tuple[float, Window]]] = {identifier: {} for identifier in limits}
    for label, window in counters.usage.windows(now):
        identifier, network = split_label(label)
        if identifier in limits and window.ends - limits[identifier].window <= now:
            share = limits[identifier].share(window.used)
            known = found[identifier].get(network)
            if known is None or share > known[0]:
                found[identifier][network] = share, window
    return found


def _describe(client: str, share: float, window: Window) -> NetworkShare:
    used = window.used
    return NetworkShare(client, share, used.requests, used.pulls, used.bytes, window.ends)


def _client_name(settings: Settings, network: bytes) -> str:
    """Return the name of the network with that packed address, as far as the history may name it."""
    address = unpack_address(network)
    detail = settings.history_addresses if settings.history is not None else "none"
    if detail == "full":
        return str(client_network(address)).removesuffix("/32")
    return stored_client(address, detail, tuple(client_regions(settings)))
