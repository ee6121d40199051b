"""The last hours drawn: bars and an area that take whatever width there is; words stand around them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attrs import frozen
from twisted.web.template import Tag

from ...status.cache_series import PERIOD, SeriesSlot

_SLOTS_A_BAR = 3
_HEIGHT = 100


@frozen
class Bar:
    """Some slots together.

    :ivar held: bytes held at their end; None where that was not yet known then.
    """

    begins: int
    asked: int
    hits: int
    held: int | None


def group_slots(slots: Sequence[SeriesSlot]) -> list[Bar]:
    """A quarter of an hour each, the last one up to now; what is held is so until something else is seen."""
    found: list[Bar] = []
    held: int | None = None
    first = -len(slots) % _SLOTS_A_BAR
    for place in range(-first, len(slots), _SLOTS_A_BAR):
        some = slots[max(0, place) : place + _SLOTS_A_BAR]
        held = next((slot.held for slot in reversed(some) if slot.held is not None), held)
        found.append(
            Bar(some[0].begins, sum(slot.asked for slot in some), sum(slot.hits for slot in some), held)
        )
    return found


def count_hours(slots: Sequence[SeriesSlot]) -> int:
    """How many they are."""
    return len(slots) * PERIOD // 3600


def draw_hit_ratios(of: Sequence[Bar], label: str) -> Tag:
    """Of each the share of hits, and above it the rest."""
    return _svg(label, len(of), (shape for place, bar in enumerate(of) for shape in _ratio(place, bar)))


def draw_volumes(of: Sequence[Bar], label: str) -> Tag:
    """How much was asked, beside the time in which it was most."""
    most = max((bar.asked for bar in of), default=0)
    heights = ((place, _HEIGHT * bar.asked / most) for place, bar in enumerate(of) if bar.asked)
    return _svg(label, len(of), (_bar(place, 0, height, "asked") for place, height in heights))


def draw_sizes(of: Sequence[Bar], limit: int, label: str) -> Tag:
    """How much was held, beside how much may be."""
    most = max(limit, *(bar.held or 0 for bar in of), 1)
    known = ((place, _HEIGHT * bar.held / most) for place, bar in enumerate(of) if bar.held)
    return _svg(label, len(of), (_bar(place, 0, height, "held", width=1.0) for place, height in known))


def _ratio(place: int, bar: Bar) -> Iterator[Tag]:
    if bar.asked:
        share = _HEIGHT * bar.hits / bar.asked
        for low, high, kind in ((0.0, share, "hit"), (share, float(_HEIGHT), "miss")):
            if low != high:
                yield _bar(place, low, high, kind)


def _bar(place: int, low: float, high: float, kind: str, width: float = 0.8) -> Tag:
    return Tag("rect")(
        class_=kind,
        x=f"{place + (1 - width) / 2:g}",
        y=f"{_HEIGHT - high:.1f}",
        width=f"{width:g}",
        height=f"{high - low:.1f}",
    )


def _svg(label: str, width: int, shapes: Iterator[Tag]) -> Tag:
    size = {"viewBox": f"0 0 {width} {_HEIGHT}", "preserveAspectRatio": "none", "aria-label": label}
    return Tag("svg")(*shapes, role="img", **size)
