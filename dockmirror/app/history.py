"""The history as the pages read it."""

from __future__ import annotations

import time
from typing import Any

from attrs import frozen

from ..config.settings import Settings
from ..history.database import FILE_NAME
from ..history.pulls import HistoryReader
from ..history.reader import SqliteHistory
from ..store.threads import RunInThread, run_in_pool


@frozen
class History:
    """A reader of the history, and the threads in which it may be called."""

    reader: HistoryReader
    in_thread: RunInThread


def open_history(settings: Settings, reactor: Any) -> History | None:
    """Return what reads the history; None if the mirror keeps none."""
    if settings.history is None:
        return None
    reader = SqliteHistory(settings.history / FILE_NAME, time.time)
    return History(reader, run_in_pool(reactor, reactor.getThreadPool()))
