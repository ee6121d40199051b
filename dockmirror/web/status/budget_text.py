"""The wording of budgets and their use, on the status page and in its text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ...config.notation import format_size
from ...status import BudgetStatus, NetworkShare
from ..pages.page import Language, format_age


def describe_limits(budget: BudgetStatus, say: Language) -> str:
    """Say what a client network may use in a window."""
    amounts = [
        *([say("status.budgets.pulls", count=f"{budget.pulls:,}")] if budget.pulls is not None else []),
        *(
            [say("status.budgets.requests", count=f"{budget.requests:,}")]
            if budget.requests is not None
            else []
        ),
        *([format_size(budget.bytes)] if budget.bytes is not None else []),
    ]
    limits = say("status.comma").join(amounts) or say("status.budgets.unlimited")
    return say(f"status.budgets.{budget.each}", limits=limits, window=format_age(budget.window, say))


def describe_use(budget: BudgetStatus, say: Language) -> str:
    """Say how many client networks have used some and all of it, and how many requests were refused."""
    counts = {"networks": budget.networks, "used_up": budget.used_up, "refused": budget.refused}
    return say("status.budgets.use", **{name: f"{count:,}" for name, count in counts.items()})


NETWORK_COLUMNS = ("network", "pulls", "requests", "sent", "limit_share", "window_left")


def network_rows(networks: Iterable[NetworkShare], now: float, say: Language) -> Iterator[list[str]]:
    """Return the cells of each client network; see ``NETWORK_COLUMNS``."""
    for each in networks:
        left = format_age(max(0.0, each.ends - now), say)
        counts = f"{each.pulls:,}", f"{each.requests:,}", format_size(each.bytes)
        yield [each.client or say("status.unnamed"), *counts, f"{100 * each.share:.0f} %", left]
