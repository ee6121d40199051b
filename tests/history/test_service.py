"""The thread that writes the history, beside the reactor."""

from __future__ import annotations

from functools import partial
from ipaddress import ip_address
from pathlib import Path

from twisted.internet.task import Clock

from dockmirror.app.history import FLUSH_PERIOD, HistoryService
from dockmirror.history.database import FILE_NAME
from dockmirror.history.history_writer import HistoryBounds
from dockmirror.history.part_requests import PartRequest, RunningPull, add_up
from dockmirror.history.pull_table import PULL_TABLE_SIZE, ClientRecord, PullTable
from dockmirror.history.pulls import HistoryError, PullFilter
from dockmirror.history.reader import SqliteHistory
from dockmirror.history.recorder import PullRecorder
from dockmirror.oci.request import Tag
from dockmirror.system.networks import ClientAddress

from ..integration.parts.process import wait_until
from ..stacks import logged
from .kept import NOW, number_at


def make_service(directory: Path, clock: Clock | None = None) -> tuple[PullRecorder, HistoryService]:
    clock = clock or Clock()
    clock.advance(NOW)
    recorder = PullRecorder(PullTable(memoryview(bytearray(PULL_TABLE_SIZE))), clock)
    return recorder, HistoryService(
        recorder, directory, HistoryBounds(), partial(add_up, detail="full", regions=()), clock
    )


def served(number: int) -> PartRequest:
    """A request for a manifest that was served."""
    client = ClientAddress(ip_address("10.0.0.1"), "http", "mirror.example")
    pull = RunningPull(number, str(number), ClientRecord(1, 0), client, "docker.io", "library/nginx")
    return PartRequest(pull, Tag("latest"), 1, True, False, True, True, False, NOW, 1, ended=NOW)


def test_reports_are_written_by_the_end(tmp_path: Path) -> None:
    """The directory is made when the service starts, and the last reports are written when it stops."""
    recorder, service = make_service(tmp_path / "state" / "history")
    assert not (tmp_path / "state").exists()
    service.startService()
    recorder.take([served(number_at(2))])
    service.stopService()
    reader = SqliteHistory(tmp_path / "state" / "history" / FILE_NAME, lambda: NOW)

    def is_written() -> bool:
        try:
            return len(reader.pulls(PullFilter())) == 1
        except HistoryError:  # not there yet
            return False

    wait_until(is_written, "the thread has written it")
    assert [each.number for each in reader.pulls(PullFilter())] == [number_at(2)]


def test_an_idle_history_has_no_timer(tmp_path: Path) -> None:
    """A request plans a flush; after it there is none."""
    clock = Clock()
    recorder, service = make_service(tmp_path, clock)
    service.startService()
    assert clock.getDelayedCalls() == []
    recorder.begun()
    assert len(clock.getDelayedCalls()) == 1
    clock.advance(FLUSH_PERIOD)
    assert clock.getDelayedCalls() == []
    service.stopService()


def test_a_directory_that_cannot_be_used_costs_the_history_only_until_it_can(tmp_path: Path) -> None:
    (tmp_path / "disk").touch()
    recorder, service = make_service(tmp_path / "disk" / "history")
    with logged() as lines:
        service.startService()
        wait_until(lambda: bool(lines), "it has failed")
        (tmp_path / "disk").unlink()
        recorder.take([served(number_at(2))])
        service.stopService()
    assert ["the mirror keeps no history" in lines[0], "is written again" in lines[1]] == [True, True]
    reader = SqliteHistory(tmp_path / "disk" / "history" / FILE_NAME, lambda: NOW)
    assert [each.number for each in reader.pulls(PullFilter())] == [number_at(2)]


def test_reports_are_lost_when_the_thread_falls_behind(tmp_path: Path) -> None:
    """One line says so; nothing waits."""
    recorder, _ = make_service(tmp_path)
    with logged() as lines:
        for count in range(40):
            recorder.take([served(number_at(count + 1))])
    assert len(lines) == 1
    assert "written too slowly" in lines[0]
