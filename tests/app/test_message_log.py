"""Tests of the mirror's own log."""

from __future__ import annotations

from twisted.logger import Logger, LogLevel, LogPublisher
from twisted.python.failure import Failure

from dockmirror.app.message_log import MessageLog


def logged(namespace: str, level: LogLevel, text: str, failure: Failure | None = None) -> list[str]:
    """Return the lines for one message."""
    lines = list[str]()
    log = Logger(namespace, observer=LogPublisher(MessageLog(lines.append)))
    if failure is None:
        log.emit(level, "{text}", text=text)
    else:
        log.failure(text, failure)
    return lines


def test_a_message_is_one_line_with_its_time_in_utc_and_its_level() -> None:
    (line,) = logged("dockmirror.app.service", LogLevel.info, "settings reloaded")
    time, _, text = line.partition(" ")
    assert (time[4], time[10], time[-6:], text) == ("-", "T", "+00:00", "settings reloaded")
    (line,) = logged("dockmirror.app.service", LogLevel.warn, "restart")
    assert line.endswith(" warning: restart")
    (line,) = logged("dockmirror.app.service", LogLevel.error, "failed")
    assert line.endswith(" error: failed")


def test_libraries_are_heard_only_when_something_is_wrong() -> None:
    assert logged("twisted.internet.tcp.Port", LogLevel.info, "Site starting on 8080") == []
    assert logged("dockmirror.app.service", LogLevel.debug, "detail") == []
    assert len(logged("twisted.internet.tcp.Port", LogLevel.warn, "odd")) == 1


def test_an_exception_is_logged_with_its_traceback() -> None:
    try:
        raise KeyError("nothing")
    except KeyError:
        (text,) = logged("dockmirror.web", LogLevel.critical, "cannot answer", Failure())
    assert " error: cannot answer\nTraceback (most recent call last):\n" in text
    assert "KeyError" in text
