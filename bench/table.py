"""The table of results."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from attrs import field, frozen

_HEAD = """\
| case | measured | mirror | beside | its figure | ratio | aim |
| --- | --- | ---: | --- | ---: | ---: | --- |"""


@frozen
class Aim:
    """The target of a ratio, or of the mirror's own figure when nothing is beside it."""

    text: str
    reached: Callable[[float], bool] = field(repr=False)


def at_least(limit: float) -> Aim:
    return Aim(f"≥ {limit:g}", lambda figure: figure >= limit)


def at_most(limit: float) -> Aim:
    return Aim(f"≤ {limit:g}", lambda figure: figure <= limit)


@frozen
class Row:
    """One measurement of the mirror, in each round, and of one peer."""

    case: str
    measured: str
    ours: Sequence[float]
    beside: str = ""
    theirs: Sequence[float] = ()
    aim: Aim | None = None

    @property
    def ratio(self) -> float | None:
        """The median of the rounds' ratios; None without a peer."""
        if not self.theirs:
            return None
        return statistics.median(our / their for our, their in zip(self.ours, self.theirs, strict=True))

    def __str__(self) -> str:
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        theirs = _figure(statistics.median(self.theirs)) if self.theirs else ""
        ours = _figure(statistics.median(self.ours))
        return (
            f"| {self.case} | {self.measured} | {ours} | {self.beside} | {theirs} | {ratio} | {self._aim()} |"
        )

    def _aim(self) -> str:
        if self.aim is None:
            return ""
        figure = statistics.median(self.ours) if self.ratio is None else self.ratio
        return f"{self.aim.text}: {'yes' if self.aim.reached(round(figure, 2)) else '**no**'}"


def compared(
    case: str, measured: str, got: Mapping[str, Sequence[float]], aims: Mapping[str, Aim] | None = None
) -> Iterator[Row]:
    """Return a row for each peer of the mirror, which comes first."""
    (_, ours), *others = got.items()
    for beside, theirs in others:
        yield Row(case, measured, ours, beside, theirs, (aims or {}).get(beside))


def table(rows: Iterable[Row]) -> str:
    """Format all rows in Markdown."""
    return "\n".join([_HEAD, *map(str, rows)])


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
