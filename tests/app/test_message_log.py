"""Tests of the mirror's own log."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Literal

import pytest
from twisted.logger import Logger, LogLevel, LogPublisher
from twisted.python.failure import Failure

from dockmirror.app.message_log import MessageLog
from dockmirror.system.request_context import current_pull


def logged(
    namespace: str,
    level: LogLevel,
    text: str,
    failure: Failure | None = None,
    form: Literal["text", "json"] = "text",
) -> list[str]:
    """Return the lines for one message."""
    lines = list[str]()
    messages = MessageLog(lines.append)
    messages.form = form
    log = Logger(namespace, observer=LogPublisher(messages))
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


def test_a_message_in_json_is_an_object_on_one_line() -> None:
    """Tracebacks are within it; the kind tells it from the line of a request."""
    (line,) = logged("dockmirror.app.service", LogLevel.warn, "restart", form="json")
    fields = json.loads(line)
    assert fields.pop("time").endswith("+00:00")
    assert fields == {"kind": "message", "level": "warning", "message": "restart", "pull": None}
    failure = Failure(KeyError("nothing"))
    (line,) = logged("dockmirror.web", LogLevel.critical, "cannot answer", failure, form="json")
    assert "\n" not in line
    assert (json.loads(line)["level"], "KeyError" in json.loads(line)["message"]) == ("error", True)
    current_pull.set("17")
    (line,) = logged("dockmirror.web", LogLevel.info, "joined", form="json")
    current_pull.set("")
    assert json.loads(line)["pull"] == "17"


@pytest.mark.parametrize(("output", "printed"), [(subprocess.PIPE, "a line\n"), (subprocess.DEVNULL, None)])
def test_a_line_is_printed_past_twistds_replacement_unless_that_is_all_there_is(
    output: int, printed: str | None
) -> None:
    """In the background twistd's standard output is the null device."""
    code = (
        "import sys; from dockmirror.app.message_log import print_line;"
        " sys.stdout = sys.stderr; print_line('a line')"
    )
    ended = subprocess.run([sys.executable, "-c", code], stdout=output, stderr=subprocess.PIPE, text=True)  # noqa: S603
    assert ended.stdout == printed
    assert ended.stderr == ("" if printed else "a line\n")
