"""A process that serves, put together."""

from __future__ import annotations

import errno
import os
import sys
from io import StringIO
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.testing import StringTransport

from dockmirror.app.process import ServingProcess
from dockmirror.config.load import load
from dockmirror.web.shared_tables import SharedTables
from tests.stacks import logged


class Full(StringIO):
    """A file on a disk that takes nothing more."""

    def flush(self) -> None:
        """Where it is noticed."""
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_log_that_nobody_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard output that is full, or a pipe without a reader, costs no client anything."""
    process = ServingProcess(load({}, {}), {}, reactor, SharedTables.alone())
    transport = StringTransport()
    line: Any = process.site.buildProtocol(None)
    line.makeConnection(transport)
    with monkeypatch.context() as full, logged() as texts:
        full.setattr(sys, "__stdout__", Full())
        for _ in range(2):
            line.dataReceived(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
    assert transport.value().count(b"HTTP/1.1 200 OK") == 2
    (text,) = texts
    assert "standard output takes no lines: No space left on device" in text
