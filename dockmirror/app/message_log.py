"""The mirror's own log: one line for each message, beside the lines of the access log."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Literal

from twisted.logger import ILogObserver, LogEvent, LogLevel, eventAsText
from zope.interface import implementer

from ..system.posix import is_output_discarded, write_line
from ..system.request_context import current_pull
from ..system.times import format_timestamp

_OWN = "dockmirror."
_LEVELS = {LogLevel.warn: "warning", LogLevel.error: "error", LogLevel.critical: "error"}


@implementer(ILogObserver)
class MessageLog:
    """Writes the mirror's messages, and the warnings and errors of its libraries.

    What Twisted says about its factories and ports is left out.  A message that belongs to a pull bears the
    pull's number, as the lines of the access log do.

    :param write: writes a line, given without its line break.
    :ivar form: that of the lines, which the settings say.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self.form: Literal["text", "json"] = "text"
        self._write = write

    def __call__(self, event: LogEvent) -> None:
        level = event.get("log_level", LogLevel.info)
        is_own = str(event.get("log_namespace", "")).startswith(_OWN)
        if level < LogLevel.info or not (is_own or level > LogLevel.info):
            return
        text = eventAsText(event, includeTraceback=True, includeTimestamp=False, includeSystem=False)
        time, name = format_timestamp(event["log_time"]), _LEVELS.get(level, "info")
        pull = event.get("pull") or current_pull.get() or None
        if self.form == "json":
            fields = {"kind": "message", "time": time, "level": name, "message": text.rstrip(), "pull": pull}
            self._write(json.dumps(fields))
        else:
            kind = "" if name == "info" else f"{name}: "
            about = f"pull {pull}: " if pull else ""
            self._write(f"{time} {kind}{about}{text.rstrip()}")


def print_line(line: str) -> None:
    """Print to the real standard output: twistd's replacement adds a prefix to each line.

    In the background, twistd has only the replacement, which writes to its log.

    :raises OSError: when nobody reads it.
    """
    stream = sys.stdout if is_output_discarded() else sys.__stdout__
    if stream is not None:
        write_line(stream, line)


def make_message_log() -> MessageLog:
    """Return the log on standard output; its lines are lost while nobody reads that."""

    def write(line: str) -> None:
        with suppress(OSError):
            print_line(line)

    return MessageLog(write)
