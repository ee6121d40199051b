"""A history in a directory, whose time the test sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.internet.task import Clock

from dockmirror.history.database import FILE_NAME
from dockmirror.history.history_writer import HistoryBounds, HistoryWriter
from dockmirror.history.part_requests import PartRequest, add_up
from dockmirror.history.pulls import Pull, PullFilter
from dockmirror.history.reader import SqliteHistory
from dockmirror.history.tracker import AddressDetail, PartState, PullReport, make_number

NOW = 1_800_000_000.0


class KeptHistory:
    """A writer and a reader of one file."""

    def __init__(self, directory: Path, bounds: HistoryBounds | None = None) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.path = directory / FILE_NAME
        self.writer = HistoryWriter(self.path, bounds or HistoryBounds(), busy_seconds=0.01)
        self.reader = SqliteHistory(self.path, self.clock.seconds)

    def write(self, *reports: PullReport) -> None:
        self.writer.write(reports, self.clock.seconds())

    def take(self, requests: Sequence[PartRequest], detail: AddressDetail = "full") -> None:
        """Write what a recorder hands over."""
        self.writer.write(add_up(requests, detail, ()), self.clock.seconds())

    def pulls(self, **conditions: Any) -> Sequence[Pull]:
        return self.reader.pulls(PullFilter(**conditions))

    def close(self) -> None:
        self.writer.close()


SERVED = PartState(NOW)


def report(number: int, name: int = 1, state: PartState | None = SERVED, **fields: Any) -> PullReport:
    """A report of a served manifest, with other fields where they are given."""
    report = PullReport(
        number, "10.0.0.1", "", "mirror.example", "docker.io", "library/nginx", {}, "1.27", last=NOW, gets=1
    )
    return evolve(report, parts={} if state is None else {name: state}, **fields)


def number_at(seconds: float, count: int = 1) -> int:
    """The number of a pull that began so many seconds before now."""
    return make_number(NOW - seconds, 1, count)
