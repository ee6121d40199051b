"""Figures of the history for the pages: how often an image was pulled, and when last; all calls block."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import frozen
from twisted.logger import Logger

from ...history.pulls import HistoryError, HistoryReader, PullFilter
from ...oci.digest import Digest
from ...oci.request import Reference

FIGURE_DAYS = 30
"""Days whose pulls are counted, today included; days end at midnight UTC."""
_DAY = 86_400
_RECENT = 500
"""The pulls among which the last ones of several images are looked for."""
_MOST = 100_000
_COUNT_SECONDS = 60.0
_log = Logger()


@frozen
class PullFigure:
    """The number of pulls in the last days, and when the last one began, or 0 if that is not known."""

    pulls: int = 0
    last: float = 0.0


class PullFigures:
    """Reads figures from the history.

    :param history: None if no history is kept; then there are no figures.
    :param now: returns the time in seconds since the epoch.
    """

    def __init__(self, history: HistoryReader | None, now: Callable[[], float]) -> None:
        self._history = history
        self._now = now
        self._counts: Mapping[str, int] = {}
        self._counted = -_COUNT_SECONDS

    def of_repositories(self) -> Mapping[str, PullFigure] | None:
        """Return the figures of repositories; None if there is no history."""
        if self._history is None:
            return None
        try:
            sums = self._count(self._history)
            recent = self._history.pulls(PullFilter(), _RECENT)
        except HistoryError as error:
            _log.warn("the pages show no pulls: {error}", error=str(error))
            return None
        last = {f"{each.registry}/{each.repository}": each.began for each in reversed(recent)}
        return {name: PullFigure(sums.get(name, 0), last.get(name, 0.0)) for name in {*sums, *last}}

    def _count(self, history: HistoryReader) -> Mapping[str, int]:
        """Return the pulls of each repository, as of a minute ago at most: to add them up takes a while."""
        now = self._now()
        if not 0 <= now - self._counted < _COUNT_SECONDS:
            wanted = PullFilter(since=(now // _DAY - FIGURE_DAYS + 1) * _DAY)
            self._counts = {each.key: each.pulls for each in history.sums("repository", wanted, _MOST)}
            self._counted = now
        return self._counts

    def of_tags(self, name: str) -> Mapping[str, PullFigure] | None:
        """Return the figures of a repository's tags and digests, as far as recent pulls show them."""
        if self._history is None:
            return None
        figures: dict[str, PullFigure] = {}
        try:
            for pull in self._history.pulls(PullFilter(image=name), _RECENT):
                known = figures.get(pull.reference, PullFigure())
                figures[pull.reference] = PullFigure(known.pulls + 1, max(known.last, pull.began))
        except HistoryError as error:
            _log.warn("the pages show no pulls: {error}", error=str(error))
            return None
        return figures

    def of_image(self, name: str, reference: Reference) -> PullFigure | None:
        """Return the figure of one image of a repository."""
        if self._history is None:
            return None
        is_digest = isinstance(reference, Digest)
        wanted = PullFilter(name, str(reference)) if is_digest else PullFilter(f"{name}:{reference}")
        try:
            pulls = sum(each.pulls for each in self._history.sums("repository", wanted))
            last = self._history.pulls(wanted, 1)
        except HistoryError as error:
            _log.warn("the pages show no pulls: {error}", error=str(error))
            return None
        return PullFigure(pulls, last[0].began if last else 0.0)
